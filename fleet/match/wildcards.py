r"""Wildcard patterns: `*` any text, `?` any one character; `\*`, `\?` and `\\` are those characters themselves.

Any other backslash is literal, so that an address listed as `caf\xe9@x.test` can be pasted as it stands.
"""

from collections.abc import Callable

from fleet.match import patterns

ANY_TEXT = 0
ANY_CHARACTER = 1
Token = str | int


def tokens(pattern: str) -> list[Token]:
    """Literal pieces and wildcards, in order. Neighbouring literals are one piece, neighbouring stars one star."""
    parsed: list[Token] = []
    literal: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char in "*?":
            if literal:
                parsed.append("".join(literal))
                literal.clear()
            wild = ANY_TEXT if char == "*" else ANY_CHARACTER
            if not (wild == ANY_TEXT and parsed and parsed[-1] == ANY_TEXT):
                parsed.append(wild)
            continue
        if char == "\\" and pattern[at : at + 1] in ("*", "?", "\\"):
            char = pattern[at]
            at += 1
        literal.append(char)
    if literal:
        parsed.append("".join(literal))
    return parsed


def escape(text: str) -> str:
    """The pattern that finds exactly this text."""
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")


def join(pieces: list[Token]) -> str:
    """Tokens as a canonical pattern."""
    return "".join(escape(token) if isinstance(token, str) else "*?"[token] for token in pieces)


def canonical(pattern: str) -> str:
    """The one spelling of all patterns that mean the same."""
    return join(tokens(pattern))


def unescape(text: str) -> str:
    """Plain text of a quoted value in which `*` and `?` mean themselves: the same escapes, no wildcards."""
    plain: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] in ("*", "?", "\\"):
            at += 1
        plain.append(text[at])
        at += 1
    return "".join(plain)


def literal(pattern: str) -> str | None:
    """The only text that the pattern finds, None when it has wildcards."""
    pieces = tokens(pattern)
    if not pieces:
        return ""
    return pieces[0] if len(pieces) == 1 and isinstance(pieces[0], str) else None


def is_any(pattern: str, *, empty: bool) -> bool:
    """Finds every text, the empty one included when `empty`."""
    pieces = tokens(pattern)
    if empty:
        return pieces == [ANY_TEXT]
    return ANY_TEXT in pieces and all(isinstance(token, int) for token in pieces) and pieces.count(ANY_CHARACTER) <= 1


def compile_pattern(pattern: str, fold: Callable[[str], str]) -> Callable[[str], bool]:
    """A test of the whole of a text that is folded already; `fold` is put on the literals of the pattern.

    The common shapes need no regular expression: `x`, `x*`, `*x`, `*x*`, `x*y`. The others go to RE2, in linear time.
    """
    pieces = [fold(token) if isinstance(token, str) else token for token in tokens(pattern)]
    match pieces:
        case []:
            return lambda text: not text
        case [str(whole)]:
            return whole.__eq__
        case [0]:
            return lambda text: True
        case [str(head), 0]:
            return lambda text: text.startswith(head)
        case [0, str(tail)]:
            return lambda text: text.endswith(tail)
        case [0, str(part), 0]:
            return lambda text: part in text
        case [str(head), 0, str(tail)]:
            least = len(head) + len(tail)
            return lambda text: text.startswith(head) and text.endswith(tail) and len(text) >= least
    parts = (patterns.quote(token) if isinstance(token, str) else ("(?s:.*)", "(?s:.)")[token] for token in pieces)
    return patterns.whole("".join(parts))
