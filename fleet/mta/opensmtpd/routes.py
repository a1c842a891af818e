"""How OpenSMTPD routes an address, by the rules of smtpd.conf(5): the first that fits decides.

smtpctl cannot tell, so the file is read, as for mail of the host itself (`from local`) that nobody has authenticated. A
rule that may or may not fit (a tag, a regular expression, a table that is not a file) is named and passed over.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fleet.mta.address import domain_of
from fleet.mta.bounds import port_of
from fleet.mta.errors import UnparsedOutput
from fleet.mta.host.commands import lines_of
from fleet.mta.opensmtpd import conf
from fleet.mta.records import InstanceFacts
from fleet.mta.routes.probe import Route, Routing
from fleet.mta.routes.resolve import Destination
from fleet.mta.steps import Command, Steps, run

EMULATED = "read from smtpd.conf, for mail of the host itself; smtpctl cannot tell how an address is routed"
DISCOVER = "opensmtpd_discover.sh"
TABLES = "opensmtpd_tables.sh"
URL = re.compile(r"(?:(?P<scheme>[a-z+]+)://)?(?:[^@/]*@)?(?P<host>\[[^\]]+\]|[^:/\[\]]+)(?::(?P<port>\d+))?/?")
PORTS = {"smtps": 465}
WITH_VALUE = frozenset({"domain", "rcpt-to", "mail-from", "src", "rdns", "helo", "tag", "auth"})

Fits = bool | None
"""None: it depends on what is not known here."""


@dataclass(frozen=True, slots=True)
class Mail:
    """`sender` "" when unknown."""

    recipient: str
    sender: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rules:
    statements: Sequence[conf.Statement]
    entries: dict[str, list[str] | None]


def find_routes(instance: InstanceFacts, recipient: str, sender: str) -> Steps[Routing]:
    """The first rule that fits, and where its action sends the mail.

    Raises UnparsedOutput and others; an unreadable configuration is an error, an unreadable table a doubt.
    """
    done = yield from run(Command((), script=DISCOVER))
    pairs = [(word, value) for word, _, value in (line.partition(" ") for line in lines_of(done, DISCOVER))]
    if any(word == "unreadable" for word, _ in pairs):
        raise UnparsedOutput("smtpd.conf, or what it includes, cannot be read by this account")
    config = conf.statements([value for word, value in pairs if word == "conf"])
    entries = yield from _read_tables(config)
    names = [value.lower() for word, value in pairs if word == "mailname"]
    mail = Mail(recipient, sender, frozenset([*names, "localhost"]))
    chosen, helo, notes = decide(Rules(config, entries), mail)
    notes = [EMULATED, *notes]
    return Routing((chosen,), helo or (names or ["localhost"])[-1], tuple(notes), with_hosts=True)


def _read_tables(config: Sequence[conf.Statement]) -> Steps[dict[str, list[str] | None]]:
    """The keys of each table, None where they cannot be known."""
    entries: dict[str, list[str] | None] = {}
    places: dict[str, str] = {}
    for each in config:
        if each.words[0] != "table" or len(each.words) < 3:
            continue
        name, first = each.words[1:3]
        entries[name] = None
        if first == "{":
            entries[name] = _inline(each.words[3:])
        elif first.startswith(("file:/", "/")):
            places[name] = first.removeprefix("file:")
    if not places:
        return entries
    done = yield from run(Command(tuple(dict.fromkeys(places.values())), script=TABLES, max_output=8 << 20))
    files: dict[str, list[str]] = {}
    path = ""
    for line in lines_of(done, TABLES):
        word, _, text = line.partition(" ")
        if word == "file":
            path = text
            files[path] = []
        elif word == "line" and text.strip() and not text.lstrip().startswith("#"):
            files[path].append(text.split()[0].rstrip(":").lower())
    return entries | {name: files.get(place) for name, place in places.items()}


def _inline(words: Sequence[str]) -> list[str]:
    """The keys between braces: `a, b` or `key = value, key = value`."""
    text = " ".join(words).partition("}")[0]
    return [item.partition("=")[0].strip().lower() for item in text.split(",") if item.strip()]


def decide(rules: Rules, mail: Mail) -> tuple[Route, str, list[str]]:
    """The route, the HELO name of its action ("": the host's own), and the rules that may come before it."""
    notes = []
    for each in rules.statements:
        if each.words[0] != "match":
            continue
        fits = _fits(rules, each.words[1:], mail)
        text = " ".join(each.words)
        if fits is None:
            notes.append(f"line {each.line + 1} may fit before: {text}")
        elif fits and each.words[-1] == "reject":
            return Route(mail.recipient, "undeliverable", "reject", via=(text,), detail="a rule rejects it"), "", notes
        elif fits:
            route, helo = _by_action(rules, mail, each, text)
            return route, helo, notes
    return Route(mail.recipient, "undeliverable", "", detail="no rule fits"), "", notes


def _fits(rules: Rules, words: Sequence[str], mail: Mail) -> Fits:
    """All conditions of a rule; without `from` and `for` they are local."""
    conditions: list[Fits] = []
    scopes: set[str] = set()
    at = 0
    while at < len(words) and words[at] not in ("action", "reject"):
        is_not = words[at] == "!"
        at += is_not
        scope = words[at] if words[at] in ("from", "for") else ""
        at += bool(scope)
        if scope:
            scopes.add(scope)
            is_not = is_not or words[at] == "!"
            at += words[at] == "!"
        kind = words[at]
        at += 1
        values, at = _values(words, at) if kind in WITH_VALUE else ([], at)
        fits = _condition(rules, kind, values, mail, is_for=scope == "for")
        conditions.append(fits if fits is None or not is_not else not fits)
    if "for" not in scopes:
        conditions.append(domain_of(mail.recipient) in mail.names)
    if False in conditions:
        return False
    return None if None in conditions else True


def _values(words: Sequence[str], at: int) -> tuple[list[str], int]:
    """The value of a condition: a word, `<table>`, a list in braces, or a regular expression; `auth` may lack it."""
    if at >= len(words) or words[at] in ("action", "reject", "for", "from", "!"):
        return [], at
    if words[at] == "{":
        end = at + list(words[at:]).index("}")
        return [word.lower() for word in words[at + 1 : end] if word != ","], end + 1
    if words[at] == "regex":
        values, end = _values(words, at + 1)
        return ["regex", *values], end
    return [words[at].lower() if not words[at].startswith("<") else words[at]], at + 1


def _condition(rules: Rules, kind: str, values: list[str], mail: Mail, *, is_for: bool) -> Fits:
    if kind == "any":
        return True
    if kind == "local":
        return domain_of(mail.recipient) in mail.names if is_for else True
    if kind in ("src", "rdns", "auth"):
        return False
    keys = _keys(rules, values)
    if kind == "domain":
        return None if keys is None else any(fnmatchcase(domain_of(mail.recipient), key) for key in keys)
    if kind == "rcpt-to":
        return None if keys is None else _is_address_in(mail.recipient, keys)
    if kind == "mail-from":
        return None if keys is None or not mail.sender else _is_address_in(mail.sender, keys)
    return None


def _keys(rules: Rules, values: list[str]) -> list[str] | None:
    keys: list[str] = []
    for value in values:
        if value == "regex":
            return None
        if value.startswith("<"):
            entries = rules.entries.get(value.strip("<>"))
            if entries is None:
                return None
            keys += entries
        else:
            keys.append(value)
    return keys


def _is_address_in(address: str, keys: list[str]) -> bool:
    """table(5), mail address tables: user@domain (with `*` in either part), @domain; an extension is ignored."""
    address = "@" if address == "<>" else address.lower()
    local, _, domain = address.rpartition("@")
    names = {address, f"{local.partition('+')[0]}@{domain}", f"@{domain}"}
    return any(fnmatchcase(name, key) for key in keys for name in names)


def _by_action(rules: Rules, mail: Mail, rule: conf.Statement, text: str) -> tuple[Route, str]:
    name = rule.words[-1]
    words = next((each.words for each in rules.statements if each.words[:2] == ("action", name)), ())
    how = words[2] if len(words) > 2 else ""
    via = (text, " ".join(words)) if words else (text,)
    if how != "relay":
        kind = "virtual" if "virtual" in words else "local"
        return Route(mail.recipient, kind, how, via=via, detail=f"delivered by {how or 'an unknown action'}"), ""
    domain = domain_of(mail.recipient)
    helo = _option(words, "helo")
    kind = "relay" if "domain" in rule.words else "remote"
    host = _option(words, "host")
    if not host:
        return Route(mail.recipient, kind, "relay", domain, via, (Destination(domain),)), helo
    url = URL.fullmatch(host)
    if url is None or host.startswith("<"):
        return Route(mail.recipient, kind, "relay", host, via, detail=f"the relay host {host} is not known here"), helo
    port = port_of(url["port"]) if url["port"] else PORTS.get(url["scheme"] or "", 25)
    return Route(mail.recipient, kind, "relay", host, via, (Destination(url["host"], port, by_mx=False),)), helo


def _option(words: Sequence[str], name: str) -> str:
    return words[words.index(name) + 1] if name in words[3:-1] else ""
