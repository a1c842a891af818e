"""Which expressions are true for every message.

Proven where it can be. A regular expression that finds all of some hundred probes counts too, because the answer guards
purges: to refuse one `from=/.{1,}/` too many costs a word (ALL), to miss one costs the queue.
"""

from itertools import chain, product

from fleet.match import wildcards
from fleet.match.fields import Kind, known
from fleet.match.nodes import All, And, Node, Not, Op, Or, Term, join, terms
from fleet.match.texts import text_test

_BUDGET = 40_000  # comparisons in truth tables
_STATES = ("incoming", "active", "deferred", "hold", "maildrop")
# Fields that every message has. A header may be missing: finding each of its values is not finding every message.
_PRESENT = frozenset({"from", "to", "from-domain", "to-domain", "subject", "body", "reason", "id", "state"})
_NEVER_EMPTY = frozenset({"from", "to", "id", "state"})
_WORDS = ("a", "Z", "0", "é", "ж", "漢", "😀", " ", *'!"#$%&()*+,-./:;<=>?@[]^_`{|}~', "'", "\\")
_TEXTS = (
    "<>",
    "alice@example.com",
    "MAILER-DAEMON",
    "x" * 3000,
    "a b c",
    "1 2",
    "bounce+1234=x@mx-1.example.co.uk",
    "host mx.example.net[192.0.2.1] said: 450 4.7.1 try again later (in reply to RCPT TO command)",
    "F2A1A27891E",
    "1rAbCd-000123-Xy",
)

Variable = tuple[str] | Term
Value = bool | float | str


def matches_everything(node: Node) -> bool:
    """True when no message can be left out."""
    if isinstance(node, All):
        return True
    certain = {term: value for term in set(terms(node)) if (value := _constant(term)) is not None}
    simple = _reduced(node, certain)
    return simple if isinstance(simple, bool) else _is_tautology(simple)


def _constant(term: Term) -> bool | None:
    """What a term says of every message, None when it depends."""
    if known(term.field).kind is Kind.NUMBER:
        if term.value == 0:
            return {Op.GTE: True, Op.LT: False}.get(term.op)
        return None
    if term.field not in _PRESENT:
        return None
    if term.op is Op.CONTAINS:
        return True if term.value == "" else None
    if term.op is Op.IS:
        return True if wildcards.is_any(str(term.value), empty=term.field not in _NEVER_EMPTY) else None
    return True if _finds_all_probes(term) else None


def _finds_all_probes(term: Term) -> bool:
    """Whether a regular expression finds each probe. Its own characters are some: a class that leaves one out shows."""
    pattern = str(term.value)
    own = sorted({char for char in pattern if char.isprintable()})
    probes = chain(_WORDS, own, (char * 3 for char in own), _TEXTS)
    test = text_test(term)
    return all(map(test, probes)) and (term.field in _NEVER_EMPTY or test(""))


def _reduced(node: Node, certain: dict[Term, bool], *, negated: bool = False) -> Node | bool:
    """The node with its constants worked out and its negations moved down to the terms."""
    if isinstance(node, Not):
        return _reduced(node.inner, certain, negated=not negated)
    if isinstance(node, Term):
        if node in certain:
            return certain[node] is not negated
        return Not(node) if negated else node
    if not isinstance(node, And | Or):
        return not negated
    kind = Or if isinstance(node, Or) is not negated else And
    settled = kind is Or
    left: list[Node] = []
    for item in node.items:
        reduced = _reduced(item, certain, negated=negated)
        if reduced is settled:
            return settled
        if not isinstance(reduced, bool):
            left.append(reduced)
    return join(kind, left) if left else not settled


def _is_tautology(node: Node, budget: int = _BUDGET) -> bool:
    """By its truth table when that is affordable, else by its parts."""
    if _has_complement(node):
        return True
    domains = _domains(set(terms(node)))
    rows = 1
    for values in domains.values():
        rows *= len(values)
    if rows * sum(1 for _ in terms(node)) > budget:
        return isinstance(node, And) and all(_is_tautology(item, budget // len(node.items)) for item in node.items)
    return all(_holds(node, dict(zip(domains, row, strict=True))) for row in product(*domains.values()))


def _has_complement(node: Node) -> bool:
    """`A OR -A`, at any length."""
    if not isinstance(node, Or):
        return False
    items = set(node.items)
    return any(isinstance(item, Not) and item.inner in items for item in items)


def _domains(found: set[Term]) -> dict[Variable, list[Value]]:
    """What can vary: a number at and around each threshold, the state, and every other term by itself."""
    domains: dict[Variable, list[Value]] = {}
    points: dict[str, set[float]] = {}
    for term in sorted(found, key=repr):
        if known(term.field).kind is Kind.NUMBER:
            step, limit = 0.5 if term.field == "age" else 1, int(term.value)
            near = points.setdefault(term.field, set())
            near.update(point for point in (limit - step, limit, limit + step) if point >= 0)
        elif _is_state(term):
            domains[("state",)] = list(_STATES)
        else:
            domains[term] = [False, True]
    return domains | {(field,): list(values) for field, values in points.items()}


def _is_state(term: Term) -> bool:
    return term.field == "state" and str(term.value).lower() in _STATES


def _holds(node: Node, values: dict[Variable, Value]) -> bool:
    if isinstance(node, Not):
        return not _holds(node.inner, values)
    if isinstance(node, And):
        return all(_holds(item, values) for item in node.items)
    if isinstance(node, Or):
        return any(_holds(item, values) for item in node.items)
    if not isinstance(node, Term):
        return True
    if _is_state(node):
        return values[("state",)] == str(node.value).lower()
    if isinstance(node.value, int):
        value = float(values[(node.field,)])
        above, equal = value > node.value, value == node.value
        return {Op.IS: equal, Op.GT: above, Op.GTE: above or equal, Op.LT: not (above or equal), Op.LTE: not above}[
            node.op
        ]
    return bool(values[node])
