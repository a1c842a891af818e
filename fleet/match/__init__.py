"""The selection language: one expression selects queued messages on every MTA. Pure; see docs/selection-language.md."""

from fleet.match.entry import Content, Entry, Recipient
from fleet.match.errors import ContentMissing, MatchError
from fleet.match.evaluate import Judge
from fleet.match.expression import Expression, from_json, parse, parse_any, unsupported_fields

__all__ = [
    "Content",
    "ContentMissing",
    "Entry",
    "Expression",
    "Judge",
    "MatchError",
    "Recipient",
    "from_json",
    "parse",
    "parse_any",
    "unsupported_fields",
]
