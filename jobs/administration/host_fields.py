"""What the fields of a host may be: the same rules for one host, for a file of them, and for defaults."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fleet.models import Credential, Customer, Host
from fleet.ssh.hostkeys import fingerprint, parse_host_key
from jobs.administration.addresses import check_address, own_addresses
from jobs.administration.inventory import Values
from jobs.errors import FieldError, Invalid

TRUST = ("host_key", "host_ca")
MOST_JUMPS = 4
MOST_LABELS = 64


@dataclass(frozen=True, slots=True)
class Row:
    """A host as somebody wants it. `place`: where it stands in the request (`rows[3]`), empty for a body of its own.

    `note` comes before each error's text. `wrong`: what has been found wrong already, with fields as in the row; then
    of the values only the name is looked at. `adds_labels`: its labels are set beside those that the host has, and null
    takes one away.
    """

    values: Values
    place: str = ""
    note: str = ""
    wrong: tuple[FieldError, ...] = ()
    adds_labels: bool = False


class Known:
    """What the rows of these customers may refer to, read at once; the hosts that they name are locked.

    `hosts`: by name, new ones among them, which have no key yet. `taken`: names that hosts of other customers have.
    """

    def __init__(self, customers: Collection[Customer], rows: Sequence[Row]) -> None:
        self.customers = {row.slug: row for row in customers}
        self.taken: set[str] = set()
        self.own_addresses = cache(own_addresses)
        names = {row.values["name"] for row in rows if "name" in row.values}
        hosts = Host.objects.filter(name__in=names).order_by("pk").select_related("credential", "jump_host")
        own = hosts.select_for_update(of=("self",), no_key=True).filter(customer__in=customers)
        self.hosts = {row.name: self._with_customer(row) for row in own}
        if len(self.hosts) < len(names):
            self.taken = set(hosts.exclude(customer__in=customers).values_list("name", flat=True))
        self._add_new(rows)
        self.wanted = [self._completed(row) for row in rows]
        self._read_references()

    def _with_customer(self, host: Host) -> Host:
        host.customer = next(row for row in self.customers.values() if row.pk == host.customer_id)
        return host

    def _add_new(self, rows: Sequence[Row]) -> None:
        for row in rows:
            name, customer = row.values.get("name"), self.customers.get(row.values.get("customer", ""))
            if name is not None and customer is not None and name not in self.hosts and name not in self.taken:
                self.hosts[name] = Host(name=name, customer=customer)

    def _completed(self, row: Row) -> dict[str, Any]:
        """The row's values; with its customer's defaults for a new host, and with all labels that it is to have."""
        host = self.hosts.get(row.values.get("name", ""))
        if host is None:
            return dict(row.values)
        defaults: Values = host.customer.defaults if host.pk is None else {}
        values = {**defaults, **row.values}
        if row.adds_labels and "labels" in row.values:
            labels = defaults.get("labels", {}) if host.pk is None else host.labels
            merged = {**labels, **row.values["labels"]}
            values["labels"] = {name: text for name, text in merged.items() if text is not None}
        return values

    def _read_references(self) -> None:
        keys = {values["credential"] for values in self.wanted if "credential" in values}
        credentials = Credential.objects.filter(customer__in=self.customers.values(), name__in=keys)
        self.credentials = {
            (row.customer_id, row.name): row for row in (credentials.defer("private_key") if keys else ())
        }
        wanted = {
            values["name"]: values["jump_host"] for values in self.wanted if values.keys() >= {"name", "jump_host"}
        }
        self.jumps: dict[str, str | None] = {}
        if set(wanted.values()) - {None}:
            # Two who lead to each other at the same moment would each find that the other one leads nowhere.
            customers = Customer.objects.filter(pk__in=[row.pk for row in self.customers.values()])
            list(customers.select_for_update(no_key=True).order_by("pk").values_list("pk"))
            theirs = Host.objects.filter(customer__in=self.customers.values())
            self.jumps = dict(theirs.values_list("name", "jump_host__name"))
            others = theirs.filter(name__in=set(wanted.values()) - self.hosts.keys() - {None})
            self.hosts |= {row.name: row for row in others}
        self.jumps |= wanted
        self.reached: dict[str, list[str]] = {}
        for name, through in self.jumps.items():
            if through is not None:
                self.reached.setdefault(through, []).append(name)

    def credential(self, customer: Customer, name: str) -> Credential:
        """Raises Invalid."""
        found = self.credentials.get((customer.pk, name))
        if found is None:
            raise Invalid.field("credential", "invalid", f"{customer.slug} has no credential {name!r}")
        return found

    def jump_host(self, customer: Customer, host: str, name: str | None) -> Host | None:
        """That of the name, through which `host` is to be reached. Raises Invalid."""
        if name is None:
            return None
        found = self.hosts.get(name)
        if found is None or found.customer_id != customer.pk:
            raise Invalid.field("jump_host", "invalid", f"{customer.slug} has no host {name!r}")
        step: str | None = name
        passed = 0
        while step is not None and passed < MOST_JUMPS:
            if step == host:
                raise Invalid.field("jump_host", "invalid", f"{host} would be reached through itself")
            step, passed = self.jumps.get(step), passed + 1
        if step is not None or passed + self._steps_below(host) > MOST_JUMPS:
            raise Invalid.field("jump_host", "invalid", f"a host is reached through at most {MOST_JUMPS} others")
        return found

    def _steps_below(self, host: str) -> int:
        """How many more jumps the farthest of those takes that are reached through `host`; of too many not all."""
        steps, below = 0, self.reached.get(host, [])
        while below and steps < MOST_JUMPS:
            steps, below = steps + 1, [name for each in below for name in self.reached.get(each, ())]
        return steps


def checked_defaults(customer: Customer, values: Values) -> dict[str, Any]:
    """What new hosts of the customer are to have where nobody says otherwise, as it is kept. Raises Invalid."""
    nameless = Host(name="", customer=customer)
    fields, wrong = fields_of(Known([customer], [Row({**values, "name": ""})]), nameless, values)
    if wrong:
        raise Invalid.fields(*(placed(Row(values, "defaults"), each) for each in wrong))
    return {name: values[name] if name in ("credential", "jump_host") else value for name, value in fields.items()}


def fields_of(known: Known, host: Host, values: Values) -> tuple[dict[str, Any], list[FieldError]]:
    """The values as the model has them, and what is wrong with them."""
    fields: dict[str, Any] = {}
    wrong: list[FieldError] = []
    for name, value in values.items():
        try:
            if name != "old_fingerprint":
                fields[name] = _field(known, host, name, value)
        except Invalid as error:
            wrong += error.errors
    return fields, wrong


def _field(known: Known, host: Host, name: str, value: Any) -> Any:
    match name:
        case "credential":
            return known.credential(host.customer, value)
        case "jump_host":
            return known.jump_host(host.customer, host.name, value)
        case "address":
            check_address(value, known.own_addresses)
        case "host_key" | "host_ca" if value:
            return _host_key(name, value)
        case "labels" if len(value) > MOST_LABELS:
            raise Invalid.field("labels", "invalid", f"a host has at most {MOST_LABELS} labels")
    return value


def _host_key(name: str, text: str) -> str:
    """A public key line without its comment. Raises Invalid for the field of that name."""
    try:
        return parse_host_key(text)
    except ValueError as error:
        raise Invalid.field(name, "invalid", str(error)) from error


def not_as_pinned(host: Host, fields: Values, old: str | None) -> list[FieldError]:
    """What is wrong with a change of what the host is known by, its key or its CA: `old` has to be the fingerprint of
    what is replaced, or of what something is put beside. What is so already needs none, and may name the former one."""
    given = [name for name in TRUST if name in fields]
    changes = [name for name in given if fields[name] != getattr(host, name)]
    if not changes and (old is None or given):
        return []
    pinned = [line for name in TRUST if (line := getattr(host, name))]
    replaced = [line for name in changes if (line := getattr(host, name))] or pinned[:1]
    shown = " and ".join(fingerprint(line) for line in replaced)
    if old is None:
        detail = f"{host.name} is known by {shown}; to change that, name it in old_fingerprint"
        return [FieldError(name, "pinned", detail) for name in changes if pinned]
    if old == shown:
        return []
    return [FieldError("old_fingerprint", "pinned", f"{host.name} is known by {shown or 'no key yet'}")]


def placed(row: Row, error: FieldError) -> FieldError:
    """The error where the row stands in the request."""
    place = ".".join(part for part in (row.place, error.field) if part)
    return FieldError(place, error.code, f"{row.note}{error.detail}")
