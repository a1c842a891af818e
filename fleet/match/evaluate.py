"""Expressions as functions. Compiled once, called a million times: no look-up by field or operator is left in the call.

Three kinds of functions. A *plain* one answers from the envelope. A *quick* one does too, but may say None: more of the
message is needed. A *full* one has the message's content beside the entry.
"""

import operator
from collections.abc import Callable, Sequence
from functools import lru_cache

from fleet.match import headers, patterns, wildcards
from fleet.match.entry import Content, Entry
from fleet.match.errors import ContentMissing
from fleet.match.fields import Kind, known
from fleet.match.nodes import All, And, Node, Not, Op, Or, Term, terms
from fleet.match.texts import domain_text, text_test

Plain = Callable[[Entry], bool]
Quick = Callable[[Entry], bool | None]
Full = Callable[[Entry, Content], bool]
BODY_LIMIT = 1 << 20
# The MTAs' own words for a message that is on hold: Exim, Sendmail, OpenSMTPD.
HELD = frozenset({"hold", "frozen", "quarantined", "paused"})
_COMPARE: dict[Op, Callable[[float, float], bool]] = {
    Op.IS: operator.eq,
    Op.GT: operator.gt,
    Op.GTE: operator.ge,
    Op.LT: operator.lt,
    Op.LTE: operator.le,
}


class Judge:
    """A compiled expression.

    Called with an entry: true, false, or None when headers or body are needed. `with_content(entry, content)` always
    decides; it raises ContentMissing when the body is needed and was not fetched. `envelope` is the same function as
    the call, without the cost of the call: bind it outside of a loop over a listing.
    """

    __slots__ = ("envelope", "with_content")

    def __init__(self, envelope: Quick, with_content: Full) -> None:
        self.envelope = envelope
        self.with_content = with_content

    def __call__(self, entry: Entry) -> bool | None:
        return self.envelope(entry)


def compile_node(node: Node, now: float) -> Judge:
    """`now`: epoch seconds, what `age` counts from."""
    return Judge(_quick(node, now), _full(node, now))


def needs_content(node: Node) -> bool:
    """Whether any term looks at headers or body."""
    return any(known(term.field).headers or known(term.field).body for term in terms(node))


def _plain(node: Node, now: float) -> Plain:
    if isinstance(node, All):
        return lambda entry: True
    if isinstance(node, Term):
        return _envelope_term(node, now)
    if isinstance(node, Not):
        inner = _plain(node.inner, now)
        return lambda entry: not inner(entry)
    items = sorted(_grouped(node), key=_cost)
    tests = [_plain(item, now) for item in items] if len(items) == len(node.items) else _with_ids(node, items, now)
    return _all_of(tests) if isinstance(node, And) else _any_of(tests)


def _grouped(node: And | Or) -> list[Node]:
    """The items without the exact queue IDs of a long OR, which become one look-up in a set."""
    if isinstance(node, And) or sum(map(_is_exact_id, node.items)) < 2:
        return list(node.items)
    return [item for item in node.items if not _is_exact_id(item)]


def _with_ids(node: And | Or, others: list[Node], now: float) -> list[Plain]:
    ids = frozenset(
        wildcards.literal(str(item.value)) for item in node.items if isinstance(item, Term) and _is_exact_id(item)
    )
    return [lambda entry: entry.queue_id in ids, *(_plain(item, now) for item in others)]


def _is_exact_id(node: Node) -> bool:
    return isinstance(node, Term) and node.field == "id" and wildcards.literal(str(node.value)) is not None


def _cost(node: Node) -> int:
    """Cheap tests first; the order never changes the answer."""
    if not isinstance(node, Term):
        return 5
    if isinstance(node.value, int) or node.field in ("id", "state"):
        return 0
    return (2 if node.op is Op.REGEX else 1) + (node.field in ("to", "to-domain", "reason"))


def _all_of(tests: list[Plain]) -> Plain:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        one, two = tests
        return lambda entry: one(entry) and two(entry)
    if len(tests) == 3:
        one, two, three = tests
        return lambda entry: one(entry) and two(entry) and three(entry)
    return lambda entry: all(test(entry) for test in tests)


def _any_of(tests: list[Plain]) -> Plain:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        one, two = tests
        return lambda entry: one(entry) or two(entry)
    return lambda entry: any(test(entry) for test in tests)


def _quick(node: Node, now: float) -> Quick:
    if not needs_content(node):
        return _plain(node, now)
    if isinstance(node, And | Or):
        return _quick_group(node, now)
    if isinstance(node, Not):
        inner = _quick(node.inner, now)
        return lambda entry: None if (result := inner(entry)) is None else not result
    return lambda entry: None


def _quick_group(node: And | Or, now: float) -> Quick:
    """Kleene's logic: one false settles an AND, one true an OR, whatever is not known yet."""
    settled = isinstance(node, Or)
    known_items = tuple(item for item in node.items if not needs_content(item))
    tests = [_quick(item, now) for item in node.items if needs_content(item)]
    if known_items:
        tests.insert(0, _plain(type(node)(known_items), now))

    def fits(entry: Entry) -> bool | None:
        answer: bool | None = not settled
        for test in tests:
            result = test(entry)
            if result is settled:
                return settled
            if result is None:
                answer = None
        return answer

    return fits


def _full(node: Node, now: float) -> Full:
    if not needs_content(node):
        plain = _plain(node, now)
        return lambda entry, content: plain(entry)
    if isinstance(node, Term):
        return _content_term(node)
    if isinstance(node, Not):
        inner = _full(node.inner, now)
        return lambda entry, content: not inner(entry, content)
    if isinstance(node, And | Or):
        parts = [_full(item, now) for item in sorted(node.items, key=needs_content)]
        if isinstance(node, And):
            return lambda entry, content: all(part(entry, content) for part in parts)
        return lambda entry, content: any(part(entry, content) for part in parts)
    return lambda entry, content: True


def _envelope_term(term: Term, now: float) -> Plain:
    if known(term.field).kind is Kind.NUMBER:
        return _number_term(term, now)
    if term.field == "state":
        return _state_term(str(term.value))
    test = text_test(term)
    if term.field.endswith("-domain"):
        test = domain_text(test)
    if term.field == "id":
        return lambda entry: test(entry.queue_id)
    if term.field.startswith("from"):
        return lambda entry: test(entry.sender)
    if term.field == "reason":
        # A queue of a million messages has a few hundred reasons.
        return _any_recipient(lru_cache(maxsize=1024)(test), "reason")
    return _any_recipient(test, "address")


def _any_recipient(test: Callable[[str], bool], attribute: str) -> Plain:
    read = operator.attrgetter(attribute)

    def fits(entry: Entry) -> bool:
        for recipient in entry.recipients:  # noqa: SIM110  any() with a generator costs twice as much
            if recipient.state != "delivered" and test(read(recipient)):
                return True
        return False

    return fits


def _state_term(value: str) -> Plain:
    word = wildcards.literal(value)
    if word is None:
        wild = wildcards.compile_pattern(value, str.casefold)
        return lambda entry: wild(entry.state.casefold()) or wild(entry.native_state.casefold())
    word = word.casefold()
    if word == "hold":
        return lambda entry: entry.state == "hold" or entry.native_state.casefold() in HELD
    return lambda entry: entry.state == word or entry.native_state.casefold() == word


def _number_term(term: Term, now: float) -> Plain:
    value = int(term.value)
    compare = _COMPARE[term.op]
    if term.field == "size":
        return lambda entry: compare(entry.size, value)
    if term.field == "age":
        return lambda entry: compare(now - entry.arrival_time, value)
    return lambda entry: entry.attempts is not None and compare(entry.attempts, value)


def _content_term(term: Term) -> Full:
    if term.field == "body":
        return _body_term(term)
    test = text_test(term)
    if term.field == "msgid":
        bare = text_test(Term("msgid", Op.IS, f"<{term.value}>"))
        return lambda entry, content: any(
            test(value.strip()) or bare(value.strip()) for value in _values(content.headers, "message-id")
        )
    if term.field == "subject":
        # No Subject is an empty one, as every mail reader shows it.
        return lambda entry, content: any(map(test, _values(content.headers, "subject") or [""]))
    name = term.field[len("header[") : -1]
    return lambda entry, content: any(map(test, _values(content.headers, name)))


def _values(fields: Sequence[tuple[str, str]], name: str) -> list[str]:
    return [headers.decode(value).strip() for header, value in fields if header.lower() == name]


def _body_term(term: Term) -> Full:
    value = str(term.value)
    if term.op is Op.REGEX:
        search = patterns.search_bytes(value, ignore_case=term.ignore_case)
        return lambda entry, content: search(_body(content))
    part = value.casefold()
    return lambda entry, content: part in _body(content).decode("utf-8", "replace").casefold()


def _body(content: Content) -> bytes:
    if content.body is None:
        raise ContentMissing("the body is needed to judge this message")
    return content.body[:BODY_LIMIT]
