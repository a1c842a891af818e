"""The canonical text of an expression: stable, one line, and parsed back to the same expression."""

from fleet.match import patterns
from fleet.match.fields import SYMBOLS, known
from fleet.match.nodes import All, And, Node, Not, Op, Or, Term


def render(node: Node) -> str:
    """Terms side by side for AND, `OR` between, brackets only where an OR stands in an AND or behind a NOT."""
    if isinstance(node, Term):
        return render_term(node)
    if isinstance(node, All):
        return "ALL"
    if isinstance(node, Not):
        inner = render(node.inner)
        return f"-({inner})" if isinstance(node.inner, And | Or) else f"-{inner}"
    if isinstance(node, And):
        return " ".join(f"({render(item)})" if isinstance(item, Or) else render(item) for item in node.items)
    return " OR ".join(render(item) for item in node.items)


def render_term(term: Term) -> str:
    """One comparison."""
    start = term.field + SYMBOLS[term.op]
    if isinstance(term.value, int):
        return start + known(term.field).render(term.value)
    if term.op is Op.REGEX:
        return f"{start}{patterns.slashed(term.value)}/{'i' if term.ignore_case else ''}"
    if _is_bare(term.value):
        return start + term.value
    escaped = term.value if term.op is Op.IS else term.value.replace("\\", "\\\\")
    return start + '"' + escaped.replace('"', '\\"') + '"'


def _is_bare(value: str) -> bool:
    return bool(value) and value.isprintable() and not any(char.isspace() or char in '()[]"\\' for char in value)
