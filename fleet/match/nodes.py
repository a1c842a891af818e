"""The shape of an expression. Values are canonical already: two expressions are equal when they mean the same text."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Op(StrEnum):
    """Comparisons, by their name in the JSON form."""

    IS = "is"
    CONTAINS = "contains"
    REGEX = "regex"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison.

    `value`: for IS on text a wildcard pattern (see wildcards.py); for CONTAINS the plain text; for REGEX the pattern
    without slashes; for numbers bytes, seconds or a count. `ignore_case` is the `i` behind a regular expression.
    """

    field: str
    op: Op
    value: str | int
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class All:
    """Every message, requested in so many words."""


@dataclass(frozen=True, slots=True)
class Not:
    inner: "Node"


@dataclass(frozen=True, slots=True)
class And:
    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    items: "tuple[Node, ...]"


Node = Term | All | Not | And | Or


def join(kind: type[And] | type[Or], items: list[Node]) -> Node:
    """Items under one AND or OR; one alone stays itself, and a nested one of the same kind is taken apart."""
    if len(items) == 1:
        return items[0]
    flat: list[Node] = []
    for item in items:
        if isinstance(item, kind):
            flat.extend(item.items)
        else:
            flat.append(item)
    return kind(tuple(flat))


def terms(node: Node) -> Iterator[Term]:
    """Every comparison, from left to right."""
    if isinstance(node, Term):
        yield node
    elif isinstance(node, Not):
        yield from terms(node.inner)
    elif isinstance(node, And | Or):
        for item in node.items:
            yield from terms(item)


def depth(node: Node) -> int:
    """How many brackets and negations are nested in the canonical text."""
    if isinstance(node, Not):
        return 1 + depth(node.inner) + isinstance(node.inner, And | Or)
    if isinstance(node, Or):
        return max(depth(item) for item in node.items)
    if isinstance(node, And):
        return max(depth(item) + isinstance(item, Or) for item in node.items)
    return 0
