"""Blocking senders on Postfix: an entry in the access map that smtpd asks first, proven by an SMTP dialogue.

Where no such map is wired, the first block makes our own and puts it in front of smtpd_sender_restrictions; undoing
it takes both back. access(5), postconf(5), SMTPD_ACCESS_README.
"""

from functools import partial

from fleet.mta.blocks import edit, flow
from fleet.mta.blocks.edit import READ_SECONDS, ListFile
from fleet.mta.blocks.site import BlockSite
from fleet.mta.host.commands import Allowed, script_argv
from fleet.mta.operations import BlockList
from fleet.mta.postfix import access, main_cf, restrictions
from fleet.mta.postfix.access_facts import BlockFacts, differences, listeners, own_domains, probes, read_facts
from fleet.mta.postfix.restrictions import AccessMap
from fleet.mta.records import Context, Ended, InstanceFacts, Result
from fleet.mta.steps import Steps


def sudo_commands(instance: InstanceFacts) -> list[Allowed]:
    """Seconds and command line of all that needs root: our own map, and those that smtpd asks now."""
    options = instance.options
    kind = str(options.get("default_database_type", ""))
    own = restrictions.own_map(instance.config_dir, kind, frozenset(restrictions.BUILT))
    asked = (
        str(each) for each in (options.get(restrictions.RESTRICTIONS, ""), *options.get("service_restrictions", ()))
    )
    consulted = [each for value in asked for each in _editable(restrictions.checked_maps(value))]
    files = [_list_file(instance.config_dir, each) for each in dict.fromkeys((own, *consulted))]
    forms = (("apply", edit.EDIT_SECONDS), ("read", READ_SECONDS))
    wires = [(seconds, script_argv(main_cf.SCRIPT, *main_cf.argv(instance, action, own))) for action, seconds in forms]
    return [*edit.sudo_commands(files), *wires]


def sites(instance: InstanceFacts) -> Steps[tuple[BlockSite, ...]]:
    """The map that smtpd asks first now, without one ours; then the others that it asks."""
    facts = yield from read_facts(instance)
    first = facts.target
    maps = dict.fromkeys((first, *_editable(facts.maps)))
    return tuple(_site(instance, facts, each, is_consulted=each != first or facts.wired is not None) for each in maps)


def _editable(maps: tuple[AccessMap, ...]) -> list[AccessMap]:
    return [each for each in maps if each.type in restrictions.EDITABLE and each.path.startswith("/")]


def _list_file(config_dir: str, access_map: AccessMap) -> ListFile:
    return ListFile("postfix", config_dir, access_map.path, access_map.type)


def _site(instance: InstanceFacts, facts: BlockFacts, access_map: AccessMap, *, is_consulted: bool) -> BlockSite:
    is_own = access_map.path == f"{instance.config_dir}/{restrictions.OWN_NAME}"
    return BlockSite(
        list_file=_list_file(instance.config_dir, access_map),
        syntax=access.ACCESS,
        keys=partial(access.keys_of, rules=facts.rules),
        value_of=access.value_of,
        is_ours=access.is_ours,
        notes=partial(differences, facts),
        probes=partial(probes, facts),
        own_domains=own_domains(facts),
        wider=partial(access.wider_keys, rules=facts.rules),
        needs_file=not is_own,
        text_when_absent=access.OWN_HEAD if is_own else "",
        is_consulted=is_consulted,
        find_wiring=partial(main_cf.find_wiring, instance, facts, access_map),
        find_unwiring=partial(main_cf.find_unwiring, instance, access_map, is_own=is_own),
        map_name=access_map.name,
        rebuild=f"run postmap {access_map.name}",
        listeners=listeners(facts, access_map),
    )


def block_list(instance: InstanceFacts, operation: BlockList, context: Context) -> Steps[Result]:
    """What is blocked now: ours, and the administrator's lines of every map that smtpd checks senders with."""
    facts = yield from read_facts(instance)
    maps = _editable(facts.maps)
    data = yield from flow.listed(tuple(_site(instance, facts, each, is_consulted=True) for each in maps))
    data["others"] += [
        {"file": each.name, "line": f"(a {each.type} table, not listed)"} for each in facts.maps if each not in maps
    ]
    return Result(Ended.SUCCEEDED, data)
