"""Where an instance takes mail, and at which of these places a stranger's mail can come in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fleet.mta.records import InstanceFacts
from fleet.mta.results.changing import ListenerSeen

SMTP, SMTPS = 25, 465
ONLY_HERE = "not asked; only programs of this host reach it"
BEGINS_WITH_TLS = "not asked; it begins with TLS, which the proof does not speak"
ANY_ADDRESS = ("", "0.0.0.0", "::", "*")  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class Listener:
    """A place where an instance takes mail. `service`: as its configuration names it.

    `unasked`: why a proof is not asked there and what holds there, "" where it is.
    """

    address: str
    port: int
    service: str = ""
    unasked: str = ""

    @property
    def name(self) -> str:
        place = f"{self.address or 'every address'} port {self.port}"
        return f"{self.service} ({place})" if self.service else place

    @property
    def note(self) -> str:
        return f"{self.name}: {self.unasked}"

    def as_json(self) -> ListenerSeen:
        return {"address": self.address, "port": self.port, "service": self.service}


def listening(instance: InstanceFacts, elsewhere: str = "") -> tuple[Listener, ...]:
    """What discovery knows, each place once: `listeners` [address, port, service, "tls"], by older ones `listen`.

    Loopback is not asked where there are other addresses: strangers do not reach it, and clients there are exempt. Nor
    is a port that begins with TLS. `elsewhere`: why ports are not asked beside port 25, "" where they are.
    """
    options = instance.options
    rows = options.get("listeners") or [[*place, "", ""] for place in options.get("listen", ())]
    found: dict[tuple[str, int], Listener] = {}
    for address, port, service, mode in rows:
        unasked = BEGINS_WITH_TLS if mode == "tls" or int(port) == SMTPS else ""
        found.setdefault((str(address), int(port)), Listener(str(address), int(port), str(service), unasked))
    listeners = _unasked_beside(tuple(found.values()), lambda each: not is_loopback(each.address), ONLY_HERE)
    return _unasked_beside(listeners, lambda each: each.port == SMTP, elsewhere) if elsewhere else listeners


def _unasked_beside(
    listeners: tuple[Listener, ...], is_better: Callable[[Listener], bool], why: str
) -> tuple[Listener, ...]:
    """The same; of those that are asked, the worse ones are not where there is a better one."""
    if not any(is_better(each) for each in listeners if not each.unasked):
        return listeners
    return tuple(each if each.unasked or is_better(each) else replace(each, unasked=why) for each in listeners)


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "localhost", "loopback-only")


def reachable(address: str, host_addresses: Sequence[str]) -> str:
    """Where to ask a server that listens on `address`; loopback, whose clients are often exempt, only if need be.

    `host_addresses`: of the host, without loopback.
    """
    if address not in ANY_ADDRESS:
        return address
    plain = [each for each in host_addresses if not each.startswith("fe80:")]
    same = [each for each in plain if (":" in each) == (address == "::")]
    return (same or plain or ["127.0.0.1"])[0]
