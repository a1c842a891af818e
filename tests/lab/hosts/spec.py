"""What the lab must know of a host. Scripts are POSIX sh and run as root inside the host."""

from __future__ import annotations

from dataclasses import dataclass

from tests.lab.config import DOMAIN, PREFIX


@dataclass(frozen=True, slots=True)
class HostSpec:
    """One MX host: what is in it, how its MTA is set up, started and stopped, and when it is ready."""

    name: str
    number: int  # last part of its address, and of its MAC
    suite: str
    packages: tuple[str, ...]
    configure: str  # runs once on a fresh root, before anything is started; $NAME $ADDRESS $DOMAIN are set
    start: str
    stop: str
    ready: str = "true"  # exit status 0 when the MTA takes mail
    preseed: tuple[str, ...] = ()  # debconf answers at image time
    shells: tuple[str, ...] = ()  # login shells: user fishuser for fish, and so on
    smtp_ports: tuple[int, ...] = (25,)

    @property
    def address(self) -> str:
        return f"{PREFIX}.{self.number}"

    @property
    def fqdn(self) -> str:
        return f"{self.name}.{DOMAIN}"

    @property
    def mac(self) -> str:
        return f"02:4d:58:00:00:{self.number:02x}"
