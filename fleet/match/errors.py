"""What is wrong with an expression, and where."""


class MatchError(ValueError):
    """An expression that cannot be used. The message names the place and what was expected there.

    `code`: 'invalid' (shape, field, operator, value, limits) or 'bad_pattern' (a regular expression that RE2 refuses,
    or that is too long or too large); callers add 'matches_all' and 'unsupported' with the same class.
    `column`: 1-based character of the text form, None for JSON. `place`: where in the JSON form ('and[1].value').
    `detail` is without the place; `str()` has both.
    """

    def __init__(self, code: str, detail: str, *, column: int | None = None, place: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.column = column
        self.place = place

    def __str__(self) -> str:
        if self.column is not None:
            return f"{self.detail} at column {self.column}"
        return f"{self.detail} at {self.place}" if self.place else self.detail

    def at(self, *, column: int | None = None, place: str = "") -> "MatchError":
        """The same error at a place that only the caller knows. A place that is known already stays."""
        if self.column is not None or self.place:
            return self
        return MatchError(self.code, self.detail, column=column, place=place)


class ContentMissing(RuntimeError):
    """A message was judged by its content without the part that `needs_headers` or `needs_body` asked for.

    Never answered with false: behind a NOT that would select every message.
    """
