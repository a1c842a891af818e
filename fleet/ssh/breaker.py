"""Pauses after refusals, so that our own retries never lock us out of a host (sshd's PerSourcePenalties)."""

from dataclasses import dataclass, field

from fleet.mta.errors import AuthFailed, FleetError
from fleet.ssh.endpoint import Endpoint

PAUSE = 60.0
HOSTS_BEFORE_CREDENTIAL = 5

Credential = tuple[str, bytes, str]


def credential(endpoint: Endpoint) -> Credential:
    return endpoint.username, endpoint.private_key, endpoint.certificate


@dataclass
class Breaker:
    """A host is paused for 60 s after a wrong key or a refused credential, a credential when five hosts refused it.

    A changed endpoint is another endpoint, so an edit in the inventory ends the pause by itself. Times in seconds of
    any one clock that does not jump.
    """

    _hosts: dict[Endpoint, tuple[float, FleetError]] = field(default_factory=dict)
    _refusals: dict[Credential, dict[str, float]] = field(default_factory=dict)

    def objection(self, endpoint: Endpoint, now: float) -> FleetError | None:
        """The error that this endpoint's pause repeats, or None when it may be tried."""
        paused = self._hosts.get(endpoint)
        if paused is not None:
            until, error = paused
            if now < until:
                left = round(until - now)
                said = f"{error.detail} (a moment ago; not tried again for {left} s)"
                return type(error)(said, hint=error.hint, **{**error.data, "paused_seconds": left})
            del self._hosts[endpoint]
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

    def worked(self, endpoint: Endpoint) -> None:
        """A login succeeded: nothing is held against this host and this credential any more."""
        self._refusals.pop(credential(endpoint), None)
        self.forgive(endpoint.name)

    def forgive(self, name: str) -> None:
        """End the pause of the host `name`."""
        self._hosts = {key: value for key, value in self._hosts.items() if key.name != name}
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
