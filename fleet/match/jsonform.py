"""The JSON form. Every error names the place ('and[1].value') and what was expected there.

`{"field", "op", "value"}` is a term; `and` and `or` take lists, `not` takes one expression, `{"all": true}` is ALL.
`"flags": "i"` beside a regex ignores case. A value needs no quoting: it is the value, so that what a listing tells can
be sent back as it stands. Wildcards are in `glob` only, as behind `:` in the text.
"""

from fleet.match import wildcards
from fleet.match.errors import MatchError
from fleet.match.fields import field_name, known, make_term
from fleet.match.limits import DEPTH_LIMIT, checked
from fleet.match.nodes import All, And, Node, Not, Op, Or, Term, join
from fleet.match.units import excerpt

# Lists in lists add no bracket to the text (they are flattened), so the walk has a limit of its own.
_NESTING_LIMIT = 3 * DEPTH_LIMIT
GLOB = "glob"
"""The operator of a value with wildcards; in the text and in a Term it is IS."""
_OPS = {**{op.value: op for op in Op}, GLOB: Op.IS}
_TERM_KEYS = frozenset({"field", "op", "value", "flags"})


def load(value: object) -> Node:
    """The expression that decoded JSON stands for. Raises MatchError with the place."""
    if isinstance(value, dict) and set(value) == {"all"} and value["all"] is True:
        return All()
    return checked(_node(value, "", 0))


def dump(node: Node) -> dict[str, object]:
    """The canonical JSON form."""
    if isinstance(node, All):
        return {"all": True}
    if isinstance(node, Not):
        return {"not": dump(node.inner)}
    if isinstance(node, And | Or):
        return {"and" if isinstance(node, And) else "or": [dump(item) for item in node.items]}
    form: dict[str, object] = {"field": node.field, "op": node.op.value, "value": node.value}
    if isinstance(node.value, int):
        form["value"] = known(node.field).render(node.value)
    elif node.op is Op.IS:
        exact = wildcards.literal(node.value)
        form |= {"op": GLOB} if exact is None else {"value": exact}
    if node.ignore_case:
        form["flags"] = "i"
    return form


def _node(value: object, place: str, nested: int) -> Node:
    if nested > _NESTING_LIMIT:
        raise _wrong(f"expected at most {_NESTING_LIMIT} expressions inside one another", place)
    if not isinstance(value, dict):
        raise _wrong('expected an object with "field", "and", "or" or "not"', place)
    keys = set(value)
    for name, kind in (("and", And), ("or", Or)):
        if keys == {name}:
            return join(kind, _items(value[name], _under(place, name), nested))
    if keys == {"not"}:
        return Not(_node(value["not"], _under(place, "not"), nested + 1))
    if "field" in keys:
        return _term(value, place)
    if not keys:
        raise _wrong('expected an expression; write "ALL" to select everything', place)
    if "all" in keys:
        raise _wrong('expected a term: {"all": true} stands alone', place)
    raise _wrong('expected exactly one of "and", "or", "not", or "field" with "op" and "value"', place)


def _items(value: object, place: str, nested: int) -> list[Node]:
    if not isinstance(value, list) or not value:
        raise _wrong("expected a list with at least one expression", place)
    return [_node(item, f"{place}[{number}]", nested + 1) for number, item in enumerate(value)]


def _term(value: dict[str, object], place: str) -> Term:
    for key in value:
        if key not in _TERM_KEYS:
            raise _wrong(
                'expected "field", "op", "value" and perhaps "flags" only', _under(place, excerpt(str(key))[1:-1])
            )
    name = _text(value, "field", place)
    op_name = _text(value, "op", place)
    try:
        name = field_name(name)
    except MatchError as error:
        raise error.at(place=_under(place, "field")) from None
    taken = [each for each, op in _OPS.items() if op in known(name).ops]
    if known(name).parse is not None:
        taken = [each for each in taken if each != GLOB]
    if op_name not in taken:
        raise _wrong(f"expected one of {', '.join(taken)} for {name}, got {excerpt(op_name)}", _under(place, "op"))
    op = _OPS[op_name]
    flags = value.get("flags", "")
    if flags not in ("", "i") or (flags and op is not Op.REGEX):
        raise _wrong('expected "i", beside a regex only', _under(place, "flags"))
    given = _value(value, name, place)
    if op_name == Op.IS and known(name).parse is None:
        given = wildcards.escape(given)
    try:
        return make_term(name, op, given, ignore_case=flags == "i", is_quoted=True)
    except MatchError as error:
        raise error.at(place=_under(place, "value")) from None


def _value(value: dict[str, object], name: str, place: str) -> str:
    given = value.get("value")
    may_be_number = name in ("size", "attempts")
    if type(given) is int and may_be_number and 0 <= given < 1 << 63:
        return str(given)
    if may_be_number and type(given) in (int, float):
        raise _wrong("expected a text or a whole number of at least 0", _under(place, "value"))
    return _text(value, "value", place)


def _text(value: dict[str, object], key: str, place: str) -> str:
    text = value.get(key)
    if not isinstance(text, str):
        raise _wrong("expected a text" if key in value else f'expected "{key}"', _under(place, key))
    return text


def _under(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _wrong(expected: str, place: str) -> MatchError:
    return MatchError("invalid", expected, place=place)
