"""What operations on a host itself come to."""

from typing import Annotated, Any, TypedDict

from msgspec import Meta


class DiscoveredHost(TypedDict):
    """The host itself: fleet.mta.records.HostFacts. `clock_skew`: seconds that it is ahead. `helpers`: name, digest."""

    os: str
    login_shell: str
    has_sudo: bool
    is_root: bool
    clock_skew: float | None
    service_manager: str
    log_source: str
    exchange: str
    helpers: list[list[str]]
    login_noise: str


class DiscoveredInstance(TypedDict):
    """An MTA instance. `options` is the MTA's own."""

    id: str
    host: str
    name: str
    mta: str
    version: str
    config_dir: str
    queue_dirs: list[str]
    front_ends: list[str]
    options: dict[str, Any]


class HostDiscoverResult(TypedDict):
    """What the host is, and which MTA instances it has."""

    host: DiscoveredHost
    instances: list[DiscoveredInstance]
    notes: list[str]


class HostChecked(TypedDict):
    """One thing that was looked at. `ok`: null where it could not be found out. `hint`: what to do; else empty."""

    name: Annotated[
        str,
        Meta(extra_json_schema={"enum": ["login", "shell", "programs", "scripts", "sudo", "clock", "root", "log"]}),
    ]
    ok: bool | None
    detail: str
    hint: str
    instance: str


class HostCheckResult(TypedDict):
    """Whether a host has all that is needed. `helpers`: our scripts there, name and digest."""

    ok: bool
    checks: list[HostChecked]
    scripts: Annotated[str, Meta(extra_json_schema={"enum": ["current", "outdated", "absent"]})]
    helpers: list[list[str]]
    notes: list[str]
