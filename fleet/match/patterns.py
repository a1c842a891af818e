r"""Regular expressions of users, by RE2 alone: linear time whatever the pattern (there is no back-tracking to abuse).

Limits on top of RE2's own (repetition counts up to 1,000): 256 characters, `PROGRAM_LIMIT` instructions. `\C` is
refused because it cuts characters into bytes, `\Q` because a slash inside it has no spelling in the text form.
"""

from collections.abc import Callable

import re2
from re2 import _re2

from fleet.match.errors import MatchError

LENGTH_LIMIT = 256
# RE2 falls back from its DFA to an NFA whose time is text x program: measured, 3.6 s for the worst MiB of body.
PROGRAM_LIMIT = 2000
_MEMORY = 8 << 20
_MEMORY_OF_OURS = 2 << 20
_ANYWHERE = _re2.RE2.Anchor.UNANCHORED
_WHOLE = _re2.RE2.Anchor.ANCHOR_BOTH


def canonical(pattern: str) -> str:
    r"""One spelling for both forms: `\/` is `/`, which only the text form has to escape.

    Raises MatchError `bad_pattern` for `\C`, `\Q`, a pattern that is too long or too large, or one RE2 refuses, with
    RE2's reason.
    """
    if len(pattern) > LENGTH_LIMIT:
        raise MatchError(
            "bad_pattern", f"expected a regular expression of at most {LENGTH_LIMIT} characters, got {len(pattern)}"
        )
    plain: list[str] = []
    for piece in _pieces(pattern):
        if piece in ("\\C", "\\Q"):
            raise MatchError("bad_pattern", f"expected a regular expression without {piece}")
        plain.append("/" if piece == "\\/" else piece)
    joined = "".join(plain)
    _program(joined, ignore_case=False)
    _program(joined, ignore_case=True)
    return joined


def slashed(pattern: str) -> str:
    """The pattern as it stands between slashes."""
    return "".join("\\/" if piece == "/" else piece for piece in _pieces(pattern))


def quote(text: str) -> str:
    """A pattern that finds exactly this text."""
    return "".join(char if char.isalnum() or ord(char) > 127 else f"\\x{{{ord(char):x}}}" for char in text)


def search(pattern: str, *, ignore_case: bool) -> Callable[[str], bool]:
    """A test whether the pattern is found anywhere in a text."""
    fits = search_bytes(pattern, ignore_case=ignore_case)
    return lambda text: fits(text.encode("utf-8", "replace"))


def search_bytes(pattern: str, *, ignore_case: bool) -> Callable[[bytes], bool]:
    """The same for raw bytes, read as UTF-8; bytes that are none match no character, and disturb nothing."""
    run = _program(pattern, ignore_case=ignore_case).Match
    return lambda data: run(_ANYWHERE, data, 0, len(data))[0][0] >= 0


def whole(pattern: str) -> Callable[[str], bool]:
    """A test whether the pattern covers the whole of a text; for patterns of ours, not limited in size."""
    run = _build(pattern, ignore_case=False, memory=_MEMORY_OF_OURS).Match

    def test(text: str) -> bool:
        data = text.encode("utf-8", "replace")
        return bool(run(_WHOLE, data, 0, len(data))[0][0] >= 0)

    return test


def _pieces(pattern: str) -> list[str]:
    """Characters, each backslash together with what it escapes."""
    pieces: list[str] = []
    at = 0
    while at < len(pattern):
        width = 2 if pattern[at] == "\\" else 1
        pieces.append(pattern[at : at + width])
        at += width
    return pieces


def _program(pattern: str, *, ignore_case: bool) -> _re2.RE2:
    built = _build(pattern, ignore_case=ignore_case)
    if built.ProgramSize() > PROGRAM_LIMIT:
        raise MatchError(
            "bad_pattern",
            f"expected a smaller regular expression: {built.ProgramSize()} instructions, at most {PROGRAM_LIMIT}"
            " (large repetition counts multiply)",
        )
    return built


def _build(pattern: str, *, ignore_case: bool, memory: int = _MEMORY) -> _re2.RE2:
    # The wrapper in re2/__init__.py costs five times the search itself: it decodes spans that nobody reads.
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.case_sensitive = not ignore_case
    options.max_mem = memory
    built = _re2.RE2(pattern.encode(), options)
    if not built.ok():
        reason = built.error()
        message = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise MatchError("bad_pattern", f"expected a regular expression in RE2 syntax: {message}")
    return built
