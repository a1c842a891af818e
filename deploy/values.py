"""One setting's text as a value. Each raises ConfigError, which names the variable."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

Networks = tuple[IPv4Network | IPv6Network, ...]
TEN_YEARS = 3650 * 86_400
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DAY = 86_400


class ConfigError(Exception):
    """A setting that cannot be used: `variable`, the `problem` with it, and what would be `right`."""

    def __init__(self, variable: str, problem: str, right: str) -> None:
        super().__init__(f"{variable}: {problem}; right would be {right}")
        self.variable = variable
        self.problem = problem
        self.right = right


def words(values: Mapping[str, str], variable: str) -> list[str]:
    """What stands between the commas."""
    return [word.strip() for word in values.get(variable, "").split(",") if word.strip()]


def networks(values: Mapping[str, str], variable: str) -> Networks:
    """Comma separated networks and addresses."""
    try:
        return tuple(ip_network(word) for word in words(values, variable))
    except ValueError as error:
        raise ConfigError(variable, str(error), "comma separated networks such as 10.0.0.0/8,2001:db8::/32") from None


def duration(values: Mapping[str, str], variable: str, default: str, most: int = DAY) -> int:
    """Seconds, from 1 to `most`."""
    value = values.get(variable, default)
    number, unit = (value[:-1], value[-1]) if value[-1:] in SECONDS else (value, "s")
    if not number.isascii() or not number.isdigit() or not 1 <= int(number[:12]) * SECONDS[unit] <= most:
        right = f"a whole number with s, m, h or d, such as 30s, at most {most // DAY}d"
        raise ConfigError(variable, f"{value!r} is no duration that is taken here", right)
    return int(number) * SECONDS[unit]


@dataclass(frozen=True)
class Keep:
    """Seconds for which is kept what is over: jobs, what their runs found, their events, answers to repeated POSTs."""

    jobs: int
    details: int
    events: int
    answers: int


def keep(values: Mapping[str, str]) -> Keep:
    """What goes with a job goes with it at the latest."""
    jobs = duration(values, "MXFLEET_KEEP_JOBS", "365d", TEN_YEARS)
    details = min(jobs, duration(values, "MXFLEET_KEEP_DETAILS", "90d", TEN_YEARS))
    events = min(details, duration(values, "MXFLEET_KEEP_EVENTS", "7d", TEN_YEARS))
    return Keep(jobs, details, events, duration(values, "MXFLEET_KEEP_ANSWERS", "72h", TEN_YEARS))
