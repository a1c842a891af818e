"""One setting's text as a value. Each raises ConfigError, which names the variable."""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

Networks = tuple[IPv4Network | IPv6Network, ...]
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
