"""What the instances of a host are called: a name is given once and kept, whatever is found later."""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import replace

from fleet.mta.bounds import NAME_MOST
from fleet.mta.records import InstanceFacts

ROOM = 3
"""Characters that "-2" to "-99" may take of a name."""


def given_names(
    discovered: Sequence[InstanceFacts], known: Sequence[InstanceFacts], former: Collection[str] = ()
) -> tuple[InstanceFacts, ...]:
    """`discovered` by the names that they have or get now.

    `known`: the instances that the host has, or had, by their names; where two fit, the first is meant. `former`: names
    that some of these had before. A new instance is called as its MTA; where the host has, or had, others of that MTA,
    as its adapter calls it. What is taken gets a number.
    """
    names = _kept(discovered, known)
    taken = {*former, *(each.name for each in known)}
    for at, each in enumerate(discovered):
        if at not in names:
            is_only = [other.mta for other in (*discovered, *known)].count(each.mta) == 1
            names[at] = _free(each.mta if is_only else each.name, taken)
            taken.add(names[at])
    return tuple(replace(each, name=names[at]) for at, each in enumerate(discovered))


def _kept(discovered: Sequence[InstanceFacts], known: Sequence[InstanceFacts]) -> dict[int, str]:
    """Index in `discovered` -> the name under which it is known, by its configuration, else by its queue."""
    names: dict[int, str] = {}
    for key in (_configuration, _queue):
        for at, each in enumerate(discovered):
            same = [other.name for other in known if _is_same(each, other, key) and other.name not in names.values()]
            if same and at not in names:
                names[at] = same[0]
    return names


def _is_same(one: InstanceFacts, other: InstanceFacts, key: Callable[[InstanceFacts], Hashable]) -> bool:
    return one.mta == other.mta and bool(key(one)) and key(one) == key(other)


def _configuration(facts: InstanceFacts) -> Hashable:
    return facts.config_dir, facts.options.get("config_file")


def _queue(facts: InstanceFacts) -> Hashable:
    return frozenset(facts.queue_dirs)


def _free(wish: str, taken: Collection[str]) -> str:
    name, number = wish, 1
    while name in taken:
        number += 1
        name = f"{wish[: NAME_MOST - ROOM]}-{number}"
    return name
