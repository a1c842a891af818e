"""smtpd.conf(5) as far as we read it: statements, tables, listeners, domains, and the rule about senders."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fleet.mta.bounds import port_of

TOKEN = re.compile(r'"(?P<quoted>[^"]*)"|(?P<mark>[{},=!])|(?P<word>[^\s{},=!"]+)')
MACRO = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NAME = re.compile(r"[A-Za-z0-9_.-]*\.[A-Za-z0-9-]+")
PORTS = {"smtp": 25, "smtps": 465, "submission": 587}


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: its words, quotes removed and macros expanded, and the number of its first line, from 0.

    A `!` is a word of its own, with and without a blank behind it.
    """

    words: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class SenderRule:
    """The rule that refuses the senders of a table before any other rule is asked. `path`: the table's file."""

    table: str
    path: str
    line: int


def statements(lines: Sequence[str]) -> list[Statement]:
    """The statements of a configuration. A line that ends in a backslash goes on, and so does an open brace."""
    parsed: list[Statement] = []
    macros: dict[str, tuple[str, ...]] = {}
    words: list[str] = []
    first = 0
    is_continued = False
    for number, line in enumerate(lines):
        if not words and not is_continued:
            first = number
        text = _without_comment(line).rstrip()
        is_continued = text.endswith("\\")
        words += _words(text.removesuffix("\\"), macros)
        if is_continued or words.count("{") > words.count("}"):
            continue
        if len(words) > 2 and words[1] == "=" and MACRO.fullmatch(words[0]):
            macros[words[0]] = tuple(words[2:])
        elif words:
            parsed.append(Statement(tuple(words), first))
        words = []
    return parsed


def _without_comment(line: str) -> str:
    is_quoted = False
    for at, char in enumerate(line):
        is_quoted ^= char == '"'
        if char == "#" and not is_quoted:
            return line[:at]
    return line


def _words(text: str, macros: dict[str, tuple[str, ...]]) -> list[str]:
    expanded: list[str] = []
    for token in TOKEN.finditer(text):
        word = token["quoted"] if token["quoted"] is not None else token["mark"] or token["word"]
        if token["word"] and word.startswith("$"):
            expanded.extend(macros.get(word[1:], (word,)))
        else:
            expanded.append(word)
    return expanded


def tables(config: Iterable[Statement]) -> dict[str, str]:
    """Table names to where their data is, as in `file:/etc/aliases`; an inline table has an empty place."""
    return {
        each.words[1]: each.words[2] if each.words[2] != "{" else ""
        for each in config
        if each.words[0] == "table" and len(each.words) > 2
    }


def listeners(config: Iterable[Statement], addresses: dict[str, list[str]]) -> list[list[str | int]]:
    """[address, port, how it is written, "tls" where it begins with that] of every `listen on`.

    `addresses`: of each interface.
    """
    listed: list[list[str | int]] = []
    for each in config:
        if each.words[:2] != ("listen", "on") or len(each.words) < 3 or each.words[2] == "socket":
            continue
        where = addresses.get(each.words[2], [each.words[2]])
        port = 465 if "smtps" in each.words[3:] else 25
        if "port" in each.words:
            given = each.words[each.words.index("port") + 1]
            port = PORTS.get(given) or (port_of(given) if given.isdigit() else port)
        tag = each.words[each.words.index("tag") :][:2] if "tag" in each.words else ()
        mode = "tls" if "smtps" in each.words[3:] else ""
        listed += [[address, port, " ".join((*each.words[:3], *tag)), mode] for address in where]
    return listed


def values(config: Iterable[Statement]) -> dict[str, list[str]]:
    """The values of inline tables; of a mapping, its keys."""
    return {
        each.words[1]: [word for at, word in enumerate(each.words) if at > 2 and each.words[at - 1] in ("{", ",")]
        for each in config
        if each.words[0] == "table" and each.words[2:3] == ("{",)
    }


def own_domains(
    config: Sequence[Statement], mailnames: Iterable[str], listed: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> list[str]:
    """The domains whose mail ends here, as far as the rules name them: those of actions that do not relay.

    `listed`: the values of tables. Regular expressions are left out; `for local` means the host's own names.
    """
    ends_here = {each.words[1] for each in config if each.words[0] == "action" and "relay" not in each.words[2:3]}
    domains = {name for each in config if each.words[-1] in ends_here for name in _domains(each, listed)}
    return sorted({name.lower() for name in (*domains, *mailnames) if NAME.fullmatch(name)})


def open_domains(config: Sequence[Statement], listed: Mapping[str, Sequence[str]] = MappingProxyType({})) -> list[str]:
    """The domains for which mail is taken from everybody, as far as the rules name them. `listed`: values of tables."""
    domains = {name for each in config if _is_from_any(each.words) for name in _domains(each, listed)}
    return sorted({name.lower() for name in domains if NAME.fullmatch(name)})


def _is_from_any(words: Sequence[str]) -> bool:
    at = words.index("from") if "from" in words else 0
    return words[at : at + 2] == ("from", "any") and words[at - 1] != "!"


def _domains(statement: Statement, listed: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The domains of `match ... for domain ... action NAME`; none of `! for domain`."""
    words = statement.words
    if words[0] != "match" or "action" not in words or "domain" not in words:
        return ()
    at = words.index("domain")
    if words[at - 1] != "for" or words[at - 2] == "!":
        return ()
    rest = words[at + 1 :]
    if rest[0].startswith("<"):
        return tuple(listed.get(rest[0].strip("<>"), ()))
    return rest[1 : rest.index("}")] if rest[0] == "{" and "}" in rest else rest[:1]


def sender_rule(config: Sequence[Statement]) -> SenderRule | None:
    """The first rule, when it refuses the senders of a file's table for everybody. A later one lets others pass first.

    Rules are asked in order and the first that fits decides; `from` and `for` mean local unless they are given.
    """
    places = tables(config)
    for each in config:
        if each.words[0] != "match":
            continue
        words = " ".join(each.words[1:-1])
        sender = re.search(r"(?:^| )mail-from <([^<> ]+)>(?: |$)", words)
        if each.words[-1] != "reject" or sender is None:
            return None
        rest = (words[: sender.start()] + " " + words[sender.end() :]).split()
        place = places.get(sender[1], "")
        is_for_all = sorted([" ".join(rest[:2]), " ".join(rest[2:])]) == ["for any", "from any"]
        if not is_for_all or not place.startswith("file:/"):
            return None
        return SenderRule(sender[1], place.removeprefix("file:"), each.line)
    return None


def first_match(config: Sequence[Statement]) -> int | None:
    """The number of the first rule's line."""
    return next((each.line for each in config if each.words[0] == "match"), None)
