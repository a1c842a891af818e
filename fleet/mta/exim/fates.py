"""What Exim logs of one recipient: delivery_log, deferral_log and failure_log of its deliver.c.

`FLAG ADDRESS (PARENT, ...) <TOP> FIELDS : TEXT`. An address is logged without the quotes of its local part, so that it
may look like all that follows it; then TOP, the address as it was given, has them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from fleet.mta.exim.fields import UnclearError, fields_after, fields_of, parts_of, unwrapped
from fleet.mta.logs.rows import Delivery, Recipient
from fleet.mta.logs.tracing import dsn_of

STATUS = {"=>": "sent", "->": "sent", ">>": "sent", "*>": "discarded", "**": "bounced", "==": "deferred"}
# By an ACL or local_scan(), by the system filter, by a wrapper of a user's program; a user may be called blackhole.
WHOLE = re.compile(r"=> (?:blackhole (?!<)|discarded \()|\*\* mua_wrapper is set but ")
STATUS_OF_ALL = {"=>": "discarded", "**": "bounced"}
DISCARDED = (":blackhole:", "discarded")
BYPASSED = "**bypassed**"  # the transport of what goes to /dev/null
SYSTEM_FILTER = "system-filter"
WAITING = ("queued", "deferred")

QUOTED = r'"(?:[^"\\]|\\.)*"'
PARENTS = r"(?: \(([^()]*)\))?"
AFTER = (
    r"(?= [A-Z]=|(?: [A-Z][A-Z0-9]*[*.-]*)* [A-Za-z]+\*?=| (?:routing )?defer \("
    r"| : | mua_wrapper | routing yielded |: |:?$)"
)
HEAD = (
    rf'(>*(?:[^ <>()"\\:,;\[]++|{QUOTED}|\\.|\[[^\] ]*\])++|:blackhole:){PARENTS}'
    rf'(?: <((?:[^ "\\<>]++|{QUOTED}|\\.)*)>)?{AFTER}(?P<fields>)'
)
LINE = fields_after(HEAD, "R", "T", "H", "C")
FIELDS = fields_after("", "R", "T", "H", "C")
# Files, pipes and replies of filters, with whatever their commands have.
PIPES = ("/", "|", ">", "save ")
PIPED = re.compile(rf"((?:[|/>]|save ).*?){PARENTS} <([^<>]*)>{AFTER}(?P<fields>)")
TOPS = re.compile(rf" <[^<>]*>{AFTER}")
ODD_TOP = re.compile(rf' <(?=[^ >]*["\\])((?:[^ "\\<>]|{QUOTED}|\\.)*)>{AFTER}')
MOST_TOPS = 8
MOST_KNOWN = 1000
BEFORE = re.compile(rf"\A(.*?){PARENTS}\Z", re.DOTALL)
# Of the system's errors, which have positive numbers, the name stands before further fields.
DEFER = re.compile(r" (?:routing )?defer \((?:-\d+\)|\d+\)(: [^:=]*?(?= H=| DT=|: |$))?)")
WRAPPED = ("mua_wrapper ", "routing yielded ")
TIME_TAKEN = re.compile(r" DT=\S+$")
ROUTED = re.compile(r" R=[^ ]+(?: T=[^ :]+| defer )")
CUT = re.compile(r"(?: \[[^\]\s]*)?")


@dataclass(slots=True)
class Fate:
    """`address`: as finally reached; where it `is_here`, a user, a file, a pipe or a reply of this host. `top`: as
    given, "" where it is the same. `parents`: between them, as far as they are logged."""

    address: str
    top: str
    parents: Sequence[str]
    is_here: bool
    delivery: Delivery


def fate_of(text: str, time: float) -> Fate:
    """What the line says, from its flag on. Raises UnclearError."""
    status, rest = STATUS[text[:2]], text[3:]
    line = LINE.match(rest)
    if line is None or (" <" in rest and _may_have_odd_top(rest, line.end("fields"))):
        address, parents, top, start = _odd_head(rest, line)
        values, behind = fields_of(FIELDS, rest, start)
    else:
        groups, behind = parts_of(line, rest)
        address, parents, top, start, values = *groups[:3], line.end("fields"), groups[4:]
    if status == "deferred":
        reply, values = _deferral(behind, values)
    elif status == "bounced":
        reply = _failure(behind)
        status = "expired" if _is_expired(reply) else status
    elif start + len(behind) < len(rest) and (not behind or CUT.fullmatch(behind)):
        reply = unwrapped(values[-1])
    else:
        raise UnclearError
    if rest.count(" R=") > 1 and len(ROUTED.findall(rest)) > 1:
        raise UnclearError
    _, transport, host, _ = values
    if transport == BYPASSED:
        status = "discarded"
    elif top and address in DISCARDED:
        status, address = "discarded", top
    is_here = "@" not in address or (bool(top) and address.startswith(PIPES))
    relay = address if is_here else host or transport
    if top in (address, SYSTEM_FILTER):
        top = ""
    elif top and not is_here and _is_same(address, top):
        address, top = top, ""
    delivery = Delivery(time, status, relay, dsn_of(reply), reply, is_local=is_here or not host)
    return Fate(address, top, parents.split(", ") if parents else (), is_here, delivery)


def _odd_head(rest: str, plain: re.Match[str] | None) -> tuple[str, str, str, int]:
    """Address, parents, top, and where they end. An odd top tells which address stands before it."""
    odd = list(islice(ODD_TOP.finditer(rest), MOST_TOPS + 1))
    fitting = [match for match in odd if _is_before(rest[: match.start()], match[1])]
    if len(odd) > MOST_TOPS or len(fitting) > 1 or (fitting and plain and plain.end("fields") != fitting[0].end()):
        raise UnclearError
    if fitting:
        [(address, parents)] = BEFORE.findall(rest, 0, fitting[0].start())
        return address, parents, fitting[0][1], fitting[0].end()
    if plain is None:
        plain = PIPED.match(rest)
        if plain is None or len(list(islice(TOPS.finditer(rest), 2))) > 1:
            raise UnclearError
    return plain[1], plain[2], plain[3] or "", plain.end("fields")


def _may_have_odd_top(rest: str, end: int) -> bool:
    """Whether one may stand in or behind the head that ends there."""
    if '"' not in rest and "\\" not in rest:
        return False
    return rest.find(" <", end) >= 0 or rest.find('"', 0, end) >= 0 or rest.find("\\", 0, end) >= 0


def _unquoted(address: str) -> str:
    """As deliver_split_address (deliver.c) does it."""
    if '"' not in address and "\\" not in address:
        return address
    local, _, domain = address.rpartition("@")
    return re.sub(r'\\(.)|"', lambda match: match[1] or "", local) + "@" + domain


def _is_same(address: str, top: str) -> bool:
    """Whether it is the top itself, as a router sees it: without quotes, in small letters, maybe without its domain."""
    plain = _unquoted(top).casefold()
    return plain in (address.casefold(), f"{address}@{top.rpartition('@')[2]}".casefold())


def _is_before(before: str, top: str) -> bool:
    """Whether an address may be logged so before this top: its local part, maybe without prefix and suffix."""
    address = before.partition(" (")[0] if before.endswith(")") else before
    local = (address.rpartition("@")[0] or address).casefold()
    return local in _unquoted(top).rpartition("@")[0].casefold()


def _deferral(text: str, values: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The reason, and the values of all fields: some stand behind the number of the error."""
    defer = DEFER.match(text)
    if defer is None:
        raise UnclearError
    more, text = fields_of(FIELDS, text, defer.end())
    both = tuple(zip(values, more, strict=True))
    if any(one and other for one, other in both):
        raise UnclearError
    reply = ": ".join(filter(None, ((defer[1] or "")[2:], _failure(text))))
    return reply, tuple(one or other for one, other in both)


def _failure(text: str) -> str:
    """What a line says behind its fields; a blank before the colon since 4.99."""
    said = (TIME_TAKEN.sub("", text) if " DT=" in text else text).removeprefix(" ")
    if said.startswith(": "):
        return said[2:]
    if said and not said.startswith(WRAPPED):
        raise UnclearError
    return said


def _is_expired(reply: str) -> bool:
    return (
        "retry timeout exceeded" in reply
        or "message timed out" in reply
        or "have been failing for a long time" in reply
    )


def take_fate(fate: Fate, known: dict[Recipient, Delivery]) -> Recipient:
    """Whose fate it is, among the known recipients of the message; those that it makes known better are dropped.

    What Exim knew of an alias before its targets is over. A file or a pipe is told as the address that it was for,
    unless that has others too, or they are too many to look through for each of them.
    """
    if not known:
        return (fate.top, "") if fate.is_here and fate.top and _is_for_top(fate, known) else (fate.address, fate.top)
    top = fate.top or fate.address
    known.pop(("", ""), None)
    for key in ((parent, of) for parent in (fate.top, *fate.parents) for of in ("", fate.top)):
        if key in known and known[key].status in WAITING and not known[key].relay:
            del known[key]  # deferred before it was routed
    sole = known.get((top, ""))
    if sole is not None and sole.relay.startswith(PIPES) and sole.relay != fate.address:
        sole.orig_to = top
        known[sole.relay, top] = known.pop((top, ""))
    if fate.is_here and fate.top and _is_for_top(fate, known):
        return top, ""
    return fate.address, fate.top


def _is_for_top(fate: Fate, known: dict[Recipient, Delivery]) -> bool:
    """Whether a user is named as the address was, or a file or pipe is all that it led to."""
    if not fate.address.startswith(PIPES):
        return fate.top.casefold().startswith(tuple(fate.address.casefold() + mark for mark in "@+-"))
    return len(known) <= MOST_KNOWN and all(key == (fate.top, "") for key in known if fate.top in key)
