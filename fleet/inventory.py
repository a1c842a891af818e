"""From a target (as in the API) to a frozen choice of hosts or MTA instances."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

from fleet.models import Customer, Host, Instance
from fleet.mta import REGISTRY
from fleet.mta.records import InstanceFacts

MOST_NAMES = 1000
KEYS = ("all", "customers", "hosts", "labels", "mta", "instances")
AN_INSTANCE = "expected HOST/NAME as instances/ lists them"


class TargetError(Exception):
    """`field` is the place in the request (`target.hosts[1]`); `code` as in the API."""

    def __init__(self, field: str, code: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Choice:
    """What a target came to. `instances` is empty for what works on hosts.

    `named`: customers that the target names, themselves or by a host, also where nothing of theirs is left of it.
    """

    hosts: tuple[Host, ...]
    instances: tuple[Instance, ...]
    named: frozenset[int] = frozenset()

    @property
    def customers(self) -> frozenset[int]:
        """All whom the target tells of."""
        return self.named | {host.customer_id for host in self.hosts}


def check_target(target: Any) -> None:
    """Raise TargetError unless `target` has the shape of the API."""
    if not isinstance(target, dict):
        raise TargetError("target", "wrong_type", 'an object is expected, such as {"hosts": ["mx1"]}')
    if not target:
        raise TargetError("target", "required", 'name what is meant; {"all": true} is the only way to say everything')
    for key, value in target.items():
        if key not in KEYS:
            raise TargetError(f"target.{key}", "unknown_field", f"unknown key; one of {', '.join(KEYS)} is expected")
        if key == "all":
            if value is not True:
                raise TargetError("target.all", "wrong_type", "only true can be said here")
        elif key == "labels":
            _check_labels(value)
        else:
            _check_names(f"target.{key}", value)


def _check_labels(value: Any) -> None:
    if not isinstance(value, dict) or not value:
        raise TargetError("target.labels", "wrong_type", 'an object is expected, such as {"role": ["mx"]}')
    for label, values in value.items():
        _check_names(f"target.labels.{label}", values)


def _check_names(field: str, value: Any) -> None:
    if not isinstance(value, list) or not value:
        raise TargetError(field, "wrong_type", "a list with at least one name is expected")
    if len(value) > MOST_NAMES:
        raise TargetError(field, "invalid", f"at most {MOST_NAMES} names are taken")
    for index, name in enumerate(value):
        if not isinstance(name, str) or not name:
            raise TargetError(f"{field}[{index}]", "wrong_type", "a name is expected")


def resolve(target: dict[str, Any], visible: QuerySet[Customer], *, of_hosts: bool) -> Choice:
    """The hosts (`of_hosts`) or instances that `target`, of a checked shape, names among the `visible` customers' ones.

    Raises TargetError: unknown_target for a name that is not there or not visible, disabled for one that is named and
    switched off, no_target when nothing is left.
    """
    hosts = _hosts(target, visible)
    if of_hosts:
        for key in ("mta", "instances"):
            if key in target:
                raise TargetError(f"target.{key}", "invalid", "this works on hosts: name those")
        enabled = tuple(h for h in hosts if h.enabled and h.customer.enabled)
        return _some(Choice(enabled, (), _named(target, visible)))
    rows = Instance.objects.filter(host__in=[host.pk for host in hosts]).select_related("host__customer")
    instances = list(_instances(target, rows.order_by("host__name", "name")))
    if not instances and any(h.enabled for h in hosts) and not rows.exists():
        raise TargetError("target", "no_target", "no instance of these hosts is known yet: discover the hosts first")
    chosen = {instance.host_id for instance in instances}
    return _some(Choice(tuple(h for h in hosts if h.pk in chosen), tuple(instances), _named(target, visible)))


def _named(target: dict[str, Any], visible: QuerySet[Customer]) -> frozenset[int]:
    slugs, hosts = target.get("customers", []), target.get("hosts", [])
    if len(slugs) + len(hosts) < 2:  # what is named alone is chosen, or there is nothing to choose
        return frozenset()
    return frozenset(visible.filter(Q(slug__in=slugs) | Q(hosts__name__in=hosts)).values_list("pk", flat=True))


def _some(choice: Choice) -> Choice:
    if not choice.hosts:
        raise TargetError("target", "no_target", "nothing that is enabled fits the target")
    return choice


def _hosts(target: dict[str, Any], visible: QuerySet[Customer]) -> list[Host]:
    rows = list(_narrowed(target, visible))
    if "hosts" in target:
        _all_known("hosts", target["hosts"], {h.name: h.enabled and h.customer.enabled for h in rows})
    for label, values in target.get("labels", {}).items():
        there = {h.labels.get(label) for h in rows}
        for index, value in enumerate(values):
            if value not in there:
                raise TargetError(f"target.labels.{label}[{index}]", "unknown_target", f"no host has {label}={value}")
        wanted = set(values)
        rows = [h for h in rows if h.labels.get(label) in wanted]
    return rows


def _narrowed(target: dict[str, Any], visible: QuerySet[Customer]) -> QuerySet[Host]:
    """What the database can narrow: customers, and hosts by name."""
    rows = Host.objects.filter(customer__in=visible).select_related("customer").order_by("name")
    if "customers" in target:
        named = visible.filter(slug__in=target["customers"])
        _all_known("customers", target["customers"], {customer.slug: customer.enabled for customer in named})
        rows = rows.filter(customer__slug__in=target["customers"])
    if "hosts" in target:
        rows = rows.filter(name__in=target["hosts"])
    elif "instances" in target:
        rows = rows.filter(name__in={name.partition("/")[0] for name in target["instances"]})
    return rows


def _instances(target: dict[str, Any], rows: QuerySet[Instance]) -> Iterable[Instance]:
    chosen = list(rows)
    if "mta" in target:
        _all_known(
            "mta", target["mta"], dict.fromkeys(REGISTRY, True), f"expected one of {', '.join(sorted(REGISTRY))}"
        )
        kinds = set(target["mta"])
        chosen = [i for i in chosen if i.mta in kinds]
    if "instances" in target:
        named = _by_name(chosen)
        _all_known("instances", target["instances"], {name: _is_enabled(i) for name, i in named.items()}, AN_INSTANCE)
        wanted = {named[name].pk for name in target["instances"]}
        chosen = [i for i in chosen if i.pk in wanted]
    return [i for i in chosen if _is_enabled(i)]


def _by_name(instances: Iterable[Instance]) -> dict[str, Instance]:
    """The instances by what they are called, and by what they were called before."""
    rows = list(instances)
    former = {f"{row.host.name}/{row.former_name}": row for row in rows if row.former_name}
    return former | {str(row): row for row in rows}


def called(name: str, path: str = "") -> Q:
    """The instance of that name, or that had it before; `path` leads to it (`instance__`)."""
    return Q(**{f"{path}name": name}) | Q(**{f"{path}former_name": name})


def present_names(target: dict[str, Any], instances: Iterable[Instance]) -> dict[str, Any]:
    """`target`, which came to the `instances`, with the names that these have now."""
    if "instances" not in target:
        return target
    named = _by_name(instances)
    return {**target, "instances": [str(named[name]) for name in target["instances"]]}


def with_host_renamed(target: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """`target` with the host `old` and its instances called as they are now."""
    return with_hosts_renamed(target, {old: new})


def with_hosts_renamed(target: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """`target` with these hosts and their instances called otherwise, all at once: two may have exchanged names."""

    def renamed(name: str) -> str:
        host, slash, instance = name.partition("/")
        return f"{names.get(host, host)}{slash}{instance}"

    return {key: [*map(renamed, value)] if key in ("hosts", "instances") else value for key, value in target.items()}


def _is_enabled(instance: Instance) -> bool:
    return instance.enabled and instance.host.enabled and instance.host.customer.enabled


def _all_known(key: str, names: list[str], known: dict[str, bool], right: str = "") -> None:
    for index, name in enumerate(names):
        if name not in known:
            detail = "; ".join(filter(None, (f"{name!r} is not there, or not in this target", right)))
            raise TargetError(f"target.{key}[{index}]", "unknown_target", detail)
        if not known[name]:
            raise TargetError(f"target.{key}[{index}]", "disabled", f"{name!r} is disabled")


def instance_facts(instance: Instance) -> InstanceFacts:
    """The row as adapters take it."""
    return InstanceFacts(
        host=instance.host.name,
        name=instance.name,
        mta=instance.mta,
        version=instance.version,
        config_dir=instance.config_dir,
        queue_dirs=tuple(instance.queue_dirs),
        front_ends=tuple(instance.front_ends),
        options=instance.options,
    )
