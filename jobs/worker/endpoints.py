"""From a host's row to what the SSH engine connects to. Opened keys are kept in memory while the rows are unchanged."""

from datetime import datetime

from fleet.installer.installed import scripts_there
from fleet.inventory import instance_facts
from fleet.models import Credential, Host
from fleet.mta.host.check import Inventory
from fleet.secrets import open_credential
from fleet.ssh.endpoint import Endpoint

_opened: dict[int, tuple[datetime, bytes]] = {}
"""Credential's id -> (its updated_at, its opened key). One entry per credential, replaced when the row changes."""

_seen: dict[int, datetime] = {}
"""Host's id -> the updated_at with which this process last used it."""


def endpoint_for(host: Host, credential: Credential | None = None) -> Endpoint:
    """How to reach `host`, through its jump host when it has one; by `credential` instead of its own.

    Raises SecretError when a key cannot be opened.
    """
    credential = credential or host.credential
    return Endpoint(
        name=host.name,
        address=host.address,
        port=host.port,
        username=host.username,
        private_key=_private_key(credential),
        certificate=credential.certificate,
        host_key=host.host_key,
        host_ca=host.host_ca,
        become=host.become,
        jump=endpoint_for(host.jump_host) if host.jump_host else None,
        helpers=_helpers(host),
    )


def inventory_of(host: Host) -> Inventory:
    """What a check of `host` compares with."""
    rows = host.instances.filter(enabled=True).select_related("host")
    instances = tuple(instance_facts(row) for row in rows)
    return Inventory(host.username, host.become, instances, _helpers(host), scripts_there)


def _helpers(host: Host) -> frozenset[tuple[str, str]]:
    return frozenset((name, digest) for name, digest in host.facts.get("helpers", ()))


def changed_since(host: Host) -> bool:
    """Whether somebody changed the host's row since this process last checked; he may have mended what was refused."""
    known = _seen.get(host.pk)
    _seen[host.pk] = host.updated_at
    return known is not None and known != host.updated_at


def _private_key(credential: Credential) -> bytes:
    known = _opened.get(credential.pk)
    if known is None or known[0] != credential.updated_at:
        known = (credential.updated_at, open_credential(credential))
        _opened[credential.pk] = known
    return known[1]
