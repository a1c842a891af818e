"""How large an expression may be, the same for both forms, so that each can be written as the other."""

from fleet.match.errors import MatchError
from fleet.match.nodes import Node, Op, depth, terms
from fleet.match.render import render

TEXT_LIMIT = 10_000
DEPTH_LIMIT = 20
TERM_LIMIT = 1000
REGEX_LIMIT = 50  # each may take its share of memory (patterns.py)


def checked(node: Node) -> Node:
    """The node itself. Raises MatchError 'invalid' when it is too large in its canonical text."""
    if depth(node) > DEPTH_LIMIT:
        raise MatchError("invalid", f"expected at most {DEPTH_LIMIT} brackets and negations inside one another")
    if sum(1 for _ in terms(node)) > TERM_LIMIT:
        raise MatchError("invalid", f"expected at most {TERM_LIMIT} terms")
    if sum(1 for term in terms(node) if term.op is Op.REGEX) > REGEX_LIMIT:
        raise MatchError("invalid", f"expected at most {REGEX_LIMIT} regular expressions")
    size = len(render(node))
    if size > TEXT_LIMIT:
        raise MatchError("invalid", f"expected at most {TEXT_LIMIT} characters in the canonical text, got {size}")
    return node
