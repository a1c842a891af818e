"""Tests of a text, compiled once per expression: what `:`, `~` and `=/re/` mean on each kind of field."""

from collections.abc import Callable

from fleet.match import patterns, wildcards
from fleet.match.addresses import domain_of, is_plain, plainest, spellings, unicode_domain
from fleet.match.fields import Kind, known
from fleet.match.nodes import Op, Term

Test = Callable[[str], bool]


def text_test(term: Term) -> Test:
    """The test of one raw text: an address as listed, a decoded header value, a delay reason, a queue ID."""
    value = str(term.value)
    if term.op is Op.REGEX:
        return patterns.search(value, ignore_case=term.ignore_case)
    kind = known(term.field).kind
    if kind is Kind.ADDRESS:
        return _address(term.op, value)
    if kind is Kind.DOMAIN:
        return _domain(term.op, value)
    if term.field == "id":
        return wildcards.compile_pattern(value, str)
    return _folded(term.op, value)


def domain_text(test: Test) -> Test:
    """A test of a domain as a test of the address around it."""
    return lambda address: test(domain_of(address))


def address_test(pattern: str) -> Test:
    """The test that `from:` and `to:` make of an address, as it is listed or logged."""
    return _address(Op.IS, pattern)


def _folded(op: Op, value: str) -> Test:
    if op is Op.CONTAINS:
        part = value.casefold()
        return lambda text: part in text.casefold()
    whole = wildcards.compile_pattern(value, str.casefold)
    return lambda text: whole(text.casefold())


def _address(op: Op, value: str) -> Test:
    lowered = value.lower()
    if op is Op.CONTAINS:
        parts = tuple({lowered, unicode_domain(lowered)})
        return _any_spelling(_contains(parts), spellings)
    exact = wildcards.literal(lowered)
    if exact is not None:
        return _any_spelling(plainest(exact).__eq__, spellings)
    as_written = wildcards.compile_pattern(lowered, str)
    in_unicode = wildcards.compile_pattern(lowered, _unicode_behind_at)
    return _any_spelling(lambda text: as_written(text) or in_unicode(text), spellings, plain=as_written)


def _domain(op: Op, value: str) -> Test:
    lowered = value.lower()
    if op is Op.CONTAINS:
        return _any_spelling(_contains(tuple({lowered, unicode_domain(lowered)})), _domain_spellings)
    exact = wildcards.literal(lowered)
    if exact is not None:
        name = unicode_domain(exact)
        if not name.startswith("."):
            return _any_spelling(name.__eq__, _domain_spellings)
        parent = name[1:]
        return _any_spelling(lambda text: text == parent or text.endswith(name), _domain_spellings)
    wild = wildcards.compile_pattern(lowered, unicode_domain)
    if not lowered.startswith("."):
        return _any_spelling(wild, _domain_spellings)
    parent_test = wildcards.compile_pattern(lowered[1:], unicode_domain)
    below = wildcards.compile_pattern("*" + lowered, unicode_domain)
    return _any_spelling(lambda text: parent_test(text) or below(text), _domain_spellings)


def _any_spelling(test: Test, others: Callable[[str], tuple[str, ...]], *, plain: Test | None = None) -> Test:
    """Case folded, then the one spelling that nearly all have; the few others are worked out when they occur."""
    quick = plain or test

    def fits(text: str) -> bool:
        lowered = text.lower()
        if is_plain(lowered):
            return quick(lowered)
        return any(map(test, others(lowered)))

    return fits


def _contains(parts: tuple[str, ...]) -> Test:
    if len(parts) == 1:
        (part,) = parts
        return lambda text: part in text
    return lambda text: any(part in text for part in parts)


def _domain_spellings(lowered: str) -> tuple[str, ...]:
    plain = unicode_domain(lowered)
    return (lowered,) if plain == lowered else (lowered, plain)


def _unicode_behind_at(literal: str) -> str:
    local, at, domain = literal.rpartition("@")
    return local + at + unicode_domain(domain)
