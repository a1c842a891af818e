"""The text form. Every error names the column (from 1) and what was expected there.

expression = and { "OR" and }            and = not { ["AND"] not }
not        = ( "-" | "NOT" ) not | "(" expression ")" | term
term       = field operator value        value = word | '"' text '"' | number   (behind =: "/" pattern "/" ["i"])
"""

from fleet.match import wildcards
from fleet.match.errors import MatchError
from fleet.match.fields import SYMBOLS, check_op, field_name, known, make_term
from fleet.match.limits import DEPTH_LIMIT, TERM_LIMIT, TEXT_LIMIT, checked
from fleet.match.nodes import All, And, Node, Not, Op, Or, Term, join
from fleet.match.units import excerpt

_WORDS = ("OR", "AND", "NOT", "ALL")
_EMPTY = "expected a term; write ALL to select everything"
_OPERATORS = sorted(SYMBOLS.items(), key=lambda item: -len(item[1]))


def parse_text(text: str) -> Node:
    """The expression that a text stands for. Raises MatchError with the column."""
    if len(text) > TEXT_LIMIT:
        raise MatchError("invalid", f"expected at most {TEXT_LIMIT} characters, got {len(text)}", column=TEXT_LIMIT + 1)
    return checked(_Parser(text).expression_alone())


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.nested = 0
        self.count = 0

    def expression_alone(self) -> Node:
        self.skip_spaces()
        if self.at == len(self.text):
            raise self.wrong(_EMPTY, at=0)
        if self.word() == "ALL":
            self.at += 3
            self.skip_spaces()
            if self.at < len(self.text):
                raise self.wrong("expected the end: ALL stands alone")
            return All()
        node = self.either()
        if self.at < len(self.text):
            raise self.wrong("expected a term or the end, got a closing bracket that nothing opened")
        return node

    def either(self) -> Node:
        items = [self.both()]
        while self.word() == "OR":
            self.at += 2
            self.skip_spaces()
            items.append(self.both())
        return join(Or, items)

    def both(self) -> Node:
        items = [self.negated()]
        while True:
            self.skip_spaces()
            if self.at == len(self.text) or self.text[self.at] == ")" or self.word() == "OR":
                return join(And, items)
            if self.word() == "AND":
                self.at += 3
                self.skip_spaces()
            items.append(self.negated())

    def negated(self) -> Node:
        if self.text.startswith("-", self.at):
            self.at += 1
            if self.at < len(self.text) and self.text[self.at].isspace():
                raise self.wrong("expected a term right behind -")
        elif self.word() == "NOT":
            self.at += 3
            self.skip_spaces()
        elif self.text.startswith("(", self.at):
            return self.bracketed()
        else:
            return self.term()
        self.enter()
        node = Not(self.negated())
        self.nested -= 1
        return node

    def bracketed(self) -> Node:
        start = self.at
        self.enter()
        self.at += 1
        self.skip_spaces()
        node = self.either()
        if not self.text.startswith(")", self.at):
            raise self.wrong(f"expected ) for the ( of column {start + 1}")
        self.at += 1
        self.nested -= 1
        self.delimited("a bracket")
        return node

    def term(self) -> Term:
        self.count += 1
        if self.count > TERM_LIMIT:
            raise self.wrong(f"expected at most {TERM_LIMIT} terms")
        name = self.field()
        at_operator = self.at
        op = self.operator(name)
        at_value = self.at
        try:
            check_op(name, op)
        except MatchError as error:
            raise error.at(column=at_operator + 1) from None
        flag = False
        is_quoted = self.text.startswith('"', at_value)
        if op is Op.REGEX:
            value, flag = self.pattern()
        else:
            value = self.value(name, op)
        try:
            return make_term(name, op, value, ignore_case=flag, is_quoted=is_quoted)
        except MatchError as error:
            raise error.at(column=at_value + 1) from None

    def field(self) -> str:
        start = self.at
        while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] in "-_"):
            self.at += 1
        word = self.text[start : self.at]
        if not word:
            got = f", got {excerpt(self.text[start])}" if start < len(self.text) else ""
            raise self.wrong("expected a term (field, operator, value), NOT, - or (" + got)
        if word in _WORDS:
            raise self.wrong(f"expected a term, got {word}" + (": ALL stands alone" if word == "ALL" else ""), at=start)
        if word.upper() in _WORDS and not self.text.startswith("[", self.at):
            raise self.wrong(f"expected a field; operators are in capitals: {word.upper()}", at=start)
        if word.lower() == "header" and self.text.startswith("[", self.at):
            end = self.text.find("]", self.at)
            if end < 0:
                raise self.wrong("expected ] behind the header name", at=len(self.text))
            self.at = end + 1
        try:
            return field_name(self.text[start : self.at])
        except MatchError as error:
            raise error.at(column=start + 1) from None

    def operator(self, name: str) -> Op:
        for op, symbol in _OPERATORS:
            if self.text.startswith(symbol, self.at):
                self.at += len(symbol)
                return op
        if self.text.startswith("=", self.at):
            raise self.wrong(
                "expected / behind = (a regular expression: =/re/); equality is written with :", at=self.at + 1
            )
        allowed = " ".join(SYMBOLS[op] for op in known(name).ops)
        raise self.wrong(f"expected an operator behind {name}: {allowed}")

    def value(self, name: str, op: Op) -> str:
        quoted = self.text.startswith('"', self.at)
        raw = self.quoted() if quoted else self.bare(name)
        # In a number nothing is escaped; behind ~ nothing is a wildcard.
        return wildcards.unescape(raw) if op is Op.CONTAINS and quoted else raw

    def bare(self, name: str) -> str:
        start = self.at
        while self.at < len(self.text) and not self.text[self.at].isspace() and self.text[self.at] not in '()"':
            self.at += 1
        if self.at == start:
            raise self.wrong(f"expected a value right behind {name} and its operator")
        if self.at < len(self.text) and self.text[self.at] in '("':
            raise self.wrong(f"expected a space: a value with {self.text[self.at]} is written in quotes as a whole")
        return self.text[start : self.at]

    def quoted(self) -> str:
        r"""The text between quotes, `\"` resolved; other escapes belong to the value."""
        start = self.at
        self.at += 1
        chars: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                self.delimited("a quoted value")
                return "".join(chars)
            if char == "\\" and self.at + 1 < len(self.text):
                self.at += 1
                chars.append('"' if self.text[self.at] == '"' else "\\" + self.text[self.at])
            else:
                chars.append(char)
            self.at += 1
        raise self.wrong(f'expected " for the quote of column {start + 1}')

    def pattern(self) -> tuple[str, bool]:
        start = self.at
        while not self.text.startswith("/", self.at):
            if self.at >= len(self.text):
                raise self.wrong(f"expected / for the regular expression of column {start + 1}", at=len(self.text))
            self.at += 2 if self.text[self.at] == "\\" else 1
        regex = self.text[start : self.at]
        self.at += 1
        flag = self.text.startswith("i", self.at)
        self.at += flag
        self.delimited(r"a regular expression (its flag is i; a slash in it is written \/)")
        return regex, flag

    def delimited(self, what: str) -> None:
        if self.at < len(self.text) and not self.text[self.at].isspace() and self.text[self.at] != ")":
            raise self.wrong(f"expected a space behind {what}")

    def word(self) -> str:
        """The operator in capitals that begins here, else nothing. The position stays."""
        for word in _WORDS:
            end = self.at + len(word)
            if self.text.startswith(word, self.at) and (
                end == len(self.text) or self.text[end].isspace() or self.text[end] in "()"
            ):
                return word
        return ""

    def enter(self) -> None:
        self.nested += 1
        if self.nested > DEPTH_LIMIT:
            raise self.wrong(f"expected at most {DEPTH_LIMIT} brackets and negations inside one another")

    def skip_spaces(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def wrong(self, expected: str, *, at: int | None = None) -> MatchError:
        return MatchError("invalid", expected, column=(self.at if at is None else at) + 1)
