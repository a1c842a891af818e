"""Pauses after refusals, so that our own retries never lock us out of a host (sshd's PerSourcePenalties).

And after silence, so that a host that hangs costs whoever asks next no more than a moment.
"""

from dataclasses import dataclass, field
from typing import Any

from fleet.mta.errors import AuthFailed, FleetError
from fleet.ssh.endpoint import Endpoint

PAUSE = 60.0
# After a login that no answer came to within all its tries (about 35 s; a cable that was out for 10 s ends well within
# them). Short, for nothing but time brings such a host back, and whoever mends it waits for this; long enough that
# several jobs in a row wait for one login instead of one each.
SILENT_PAUSE = 20.0
SUSPECT = 600.0  # seconds for which a host that hung is remembered beyond its pause
HOSTS_BEFORE_CREDENTIAL = 5

Credential = tuple[str, bytes, str]


def credential(endpoint: Endpoint) -> Credential:
    return endpoint.username, endpoint.private_key, endpoint.certificate


@dataclass
class Breaker:
    """A host is paused for 60 s after a wrong key or a refused credential, a credential when five hosts refused it.

    A host that hung is paused for 20 s, then suspect until it answers. A changed endpoint is another endpoint, so
    an edit in the inventory ends the pause by itself. Times in seconds of any one clock that does not jump.
    """

    _hosts: dict[Endpoint, tuple[float, FleetError]] = field(default_factory=dict)
    _silent: dict[Endpoint, tuple[float, FleetError]] = field(default_factory=dict)
    _refusals: dict[Credential, dict[str, float]] = field(default_factory=dict)

    def objection(self, endpoint: Endpoint, now: float) -> FleetError | None:
        """The error that this endpoint's pause repeats, or None when it may be tried."""
        for paused in (self._hosts.get(endpoint), self._silent.get(endpoint)):
            if paused is not None and now < paused[0]:
                left = round(paused[0] - now)
                return _again(paused[1], f"not tried again for {left} s", paused_seconds=left)
        self._hosts.pop(endpoint, None)
        refusals = self._recent(endpoint, now)
        if len(refusals) >= HOSTS_BEFORE_CREDENTIAL:
            return AuthFailed(
                f"{endpoint.name}: not tried, {len(refusals)} hosts refused this credential within {PAUSE:.0f} s",
                hint="Check the credential itself: is its public key installed, has its certificate expired?",
            )
        return None

    def refused(self, endpoint: Endpoint, error: FleetError, now: float) -> None:
        """Take note of a host key mismatch or a refused credential."""
        self._hosts = {key: value for key, value in self._hosts.items() if now < value[0]}
        self._hosts[endpoint] = (now + PAUSE, error)
        if isinstance(error, AuthFailed):
            self._refusals.setdefault(credential(endpoint), {})[endpoint.name] = now

    def silent(self, endpoint: Endpoint, error: FleetError, now: float) -> None:
        """Take note of a host that did not answer."""
        self._silent = {key: value for key, value in self._silent.items() if now < value[0] + SUSPECT}
        self._silent[endpoint] = (now + SILENT_PAUSE, error)

    def suspicion(self, endpoint: Endpoint, now: float) -> FleetError | None:
        """How this host hung when it was asked last, or None when it may be trusted to answer."""
        at, error = self._silent.get(endpoint, (now, None))
        return _again(error, "it is being asked once more") if error and now < at + SUSPECT else None

    def answered(self, endpoint: Endpoint) -> None:
        """It answered, if only by a refusal: it does not hang any more."""
        self._silent.pop(endpoint, None)

    def worked(self, endpoint: Endpoint) -> None:
        """A login succeeded: nothing is held against this host and this credential any more."""
        self._refusals.pop(credential(endpoint), None)
        self.reset(endpoint.name)

    def reset(self, name: str) -> None:
        """End the pause of the host `name`."""
        for paused in (self._hosts, self._silent):
            for endpoint in [key for key in paused if key.name == name]:
                del paused[endpoint]
        for refusals in self._refusals.values():
            refusals.pop(name, None)

    def _recent(self, endpoint: Endpoint, now: float) -> dict[str, float]:
        key = credential(endpoint)
        recent = {name: at for name, at in self._refusals.get(key, {}).items() if now < at + PAUSE}
        if recent:
            self._refusals[key] = recent
        else:
            self._refusals.pop(key, None)
        return recent


def _again(error: FleetError, why: str, **data: Any) -> FleetError:
    """The error of a moment ago, for somebody who asks so soon after."""
    return type(error)(f"{error.detail} (a moment ago; {why})", hint=error.hint, **{**error.data, **data})
