"""Search in a list: each word must stand somewhere in a row, as it is written, whatever the case of ASCII letters."""

from typing import Any

from django.db.models import Func, TextField

from api.filters import Filter, Rows

LONGEST = 100
MOST_WORDS = 8
"""With LONGEST what a search may cost: so many looks through a row's texts, none of which has a wildcard."""


class LabelTexts(Func):
    """A host's labels as `key=value`, with blanks between them."""

    output_field = TextField()
    arity = 1
    template = "coalesce((SELECT string_agg(key || '=' || value, ' ') FROM jsonb_each_text(%(expressions)s)), '')"

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = "coalesce((SELECT group_concat(key || '=' || value, ' ') FROM json_each(%(expressions)s)), '')"
        return self.as_sql(compiler, connection, template=template, **extra)


class Joined(Func):
    """Texts with blanks between them, none of which is in a word."""

    output_field = TextField()
    template = "(%(expressions)s)"
    arg_joiner = " || ' ' || "


def search(columns: tuple[str, ...], labels: str, description: str) -> Filter:
    """Rows in which each of the words stands in one of the columns, or in a label."""

    def read(text: str) -> list[str]:
        words = text.split()
        if len(text) > LONGEST or not 1 <= len(words) <= MOST_WORDS:
            raise ValueError(f"expected 1 to {MOST_WORDS} words of up to {LONGEST} characters together")
        return words

    def apply(rows: Rows, words: list[str]) -> Rows:
        rows = rows.alias(searched=Joined(*columns, LabelTexts(labels)))
        for word in words:
            rows = rows.filter(searched__icontains=word)
        return rows

    return Filter(description, apply, read, {"type": "string", "minLength": 1, "maxLength": LONGEST})
