"""What the rest of the service sees: a checked expression, and how to get one."""

from collections.abc import Mapping
from dataclasses import dataclass

from fleet.match import jsonform, wildcards
from fleet.match.always import matches_everything
from fleet.match.errors import MatchError
from fleet.match.evaluate import HELD, Judge, compile_node
from fleet.match.fields import known
from fleet.match.nodes import All, And, Node, Not, Or, Term, terms
from fleet.match.parser import parse_text
from fleet.match.render import render


@dataclass(frozen=True, slots=True)
class Expression:
    """A selection of queued messages, checked and canonical. Equal when the canonical texts are equal."""

    root: Node

    def __str__(self) -> str:
        return render(self.root)

    def render(self) -> str:
        """The canonical text: stable, one line, at most 10,000 characters; `parse` gives the same expression back."""
        return render(self.root)

    def to_json(self) -> dict[str, object]:
        """The canonical JSON form; `from_json` gives the same expression back."""
        return jsonform.dump(self.root)

    @property
    def fields(self) -> frozenset[str]:
        """The fields it looks at, a header as `header[x-spam-flag]`."""
        return frozenset(term.field for term in terms(self.root))

    @property
    def needs_headers(self) -> bool:
        """Some messages cannot be judged without their headers."""
        return any(known(field).headers for field in self.fields)

    @property
    def needs_body(self) -> bool:
        """Some messages cannot be judged without the first MiB of their body."""
        return any(known(field).body for field in self.fields)

    @property
    def is_all(self) -> bool:
        """Literally ALL: everything, and whoever wrote it knew."""
        return isinstance(self.root, All)

    def matches_everything(self) -> bool:
        """True for every message, ALL included. Changing operations refuse it unless `is_all` (`matches_all`)."""
        return matches_everything(self.root)

    def mentions_hold(self) -> bool:
        """Messages on hold are asked for by name: `state:hold`, or an MTA's own word for it, not negated."""
        return _mentions_hold(self.root, negated=False)

    def compile(self, now: float) -> Judge:
        """A judge of messages. `now`: epoch seconds, what `age` counts from."""
        return compile_node(self.root, now)


def parse(text: str) -> Expression:
    """The expression of the text form. Raises MatchError with the column."""
    return Expression(parse_text(text))


def from_json(value: object) -> Expression:
    """The expression of the decoded JSON form. Raises MatchError with the place."""
    return Expression(jsonform.load(value))


def parse_any(value: object) -> Expression:
    """Either form, as `params.match` takes it. Raises MatchError."""
    if isinstance(value, str):
        return parse(value)
    if isinstance(value, Mapping):
        return from_json(value)
    raise MatchError("invalid", "expected an expression as a text or as an object")


def unsupported_fields(expression: Expression, supported: frozenset[str]) -> list[str]:
    """The fields that are not in `supported`, sorted. There, 'header' stands for every header."""
    return sorted(
        field for field in expression.fields if field not in supported and field.partition("[")[0] not in supported
    )


def _mentions_hold(node: Node, *, negated: bool) -> bool:
    if isinstance(node, Not):
        return _mentions_hold(node.inner, negated=not negated)
    if isinstance(node, And | Or):
        return any(_mentions_hold(item, negated=negated) for item in node.items)
    if not isinstance(node, Term) or node.field != "state" or negated:
        return False
    return (wildcards.literal(str(node.value)) or "").casefold() in HELD
