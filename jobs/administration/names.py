"""Words that are addresses of the API, and so can be no names: `hosts/import/` would be two things."""

from fleet.models import Credential, Customer, Host
from jobs.errors import Invalid
from jobs.models import Account

RESERVED = frozenset({"check", "export", "import", "replace", "scan", "scan-host-keys", "test", "verify"})
"""In any case of letters. More than are addresses today, so that a new one takes nobody's name away."""


def check_name(field: str, name: str) -> None:
    """Raise Invalid unless something new may be called so."""
    if name.lower() in RESERVED:
        raise Invalid.field(field, "reserved_name", f"{name!r} is a word of the API's addresses; take another name")


def reserved_in_use() -> list[str]:
    """What bears such a name, from before it was reserved: `host import`. It is not found by its address."""
    kinds = (("customer", Customer, "slug"), ("credential", Credential, "name"), ("host", Host, "name"))
    found = []
    for kind, model, column in (*kinds, ("account", Account, "username")):
        names = model._default_manager.order_by(column).values_list(column, flat=True)
        found += [f"{kind} {name}" for name in names.iterator() if name.lower() in RESERVED]
    return found
