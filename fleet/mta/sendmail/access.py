"""Sendmail's access map as text: cf/README "ANTI-SPAM CONFIGURATION CONTROL", makemap(8).

makemap folds keys to lower case, ends a key at white space, takes a line that begins with # for a comment, leaves out
one that begins with white space, and keeps the first of two lines with the same key.
"""

import re

from fleet.mta.address import BlockPattern, PatternKind
from fleet.mta.blocks.listfile import BLANKS, Entry, fold
from fleet.mta.errors import Unsupported
from fleet.mta.operations import SenderBlock

TAG = "From:"
LONGEST_LINE = 1000  # makemap reads lines into 1024 bytes, and leaves out the rest
DISCARD = "DISCARD"
VALUE = re.compile(r'ERROR:\d\.\d+\.\d+:"\d{3} .*"|DISCARD')
"""Each value that `value_of` gives."""

_TAGGED = re.compile(r"[a-z_]+:")
_ERROR = re.compile(r'ERROR:\d\.\d+\.\d+:"(\d{3}) (.*)"')
_ENHANCED = re.compile(r"ERROR:([\d.]+):")


def keys_of(pattern: BlockPattern) -> tuple[str, ...]:
    """The one key of a pattern. Raises Unsupported for what a key cannot hold."""
    if pattern.kind is PatternKind.NULL_SENDER:
        raise Unsupported("Sendmail does not look the null sender up in its access map")
    if pattern.address is None:
        return (f"{TAG}{pattern.domain}",)
    text = pattern.address.smtp
    if text.startswith('"'):
        raise Unsupported(f"{text} needs quotes, and a key of Sendmail's access map can have neither quotes nor blanks")
    if not pattern.address.local.isascii():
        raise Unsupported(f"{text} is no ASCII, and Sendmail's access map has no other keys")
    return (f"{TAG}{text}",)


def value_of(operation: SenderBlock) -> str:
    """The right-hand side: `ERROR:5.7.1:"550 text"` or DISCARD. Raises Unsupported for a text it cannot carry."""
    if operation.action == "discard":
        return DISCARD
    if '"' in operation.text or "\\" in operation.text:
        raise Unsupported("the text of a refusal by Sendmail can have neither quotes nor backslashes")
    text = operation.text.replace("%", "%%")  # % stands for an argument in a map's value
    return f'ERROR:{operation.enhanced}:"{operation.code} {text}"'


def is_ours(reply: str, value: str) -> bool:
    """`550 5.7.1 <r@d>... text` against `ERROR:5.7.1:"550 text"`; a 5xx to RCPT names the recipient, a 4xx does not.

    What follows the text makes it no other answer.
    """
    error, enhanced = _ERROR.fullmatch(value), _ENHANCED.match(value)
    if not error or not enhanced:
        return False
    begin, text = f"{error[1]} {enhanced[1]} ", error[2].replace("%%", "%")
    return reply.startswith(f"{begin}{text}") or (reply.startswith(begin) and f"... {text}" in reply)


def entries(text: str, offset: int) -> tuple[Entry, ...]:
    """The administrator's lines. One without a tag decides about senders too, so it counts as From:."""
    parsed = []
    for number, line in enumerate(text.split("\n"), offset + 1):
        if not line.strip(BLANKS) or line.startswith("#") or line[0] in BLANKS:
            continue
        stored, _, rest = line.replace("\t", " ").partition(" ")
        stored = fold(stored)
        key = stored if _TAGGED.match(stored) else f"{TAG.lower()}{stored}"
        value = line[len(stored) :].lstrip(" \t")
        # What ends in white space, or has none, is not the same in every makemap: never looked for in the map.
        parsed.append(Entry(key, "" if rest != rest.rstrip(BLANKS) else value, number, line, stored))
    return tuple(parsed)


def wider_keys(pattern: BlockPattern) -> tuple[str, ...]:
    """Other keys under which Sendmail finds the pattern's senders."""
    keys = []
    if pattern.address is not None:
        base = pattern.address.local.partition("+")[0]
        keys += [f"{TAG}{base}@{pattern.domain}", f"{TAG}{pattern.address.local}@", f"{TAG}{base}@"]
    labels = pattern.domain.split(".")
    keys += [f"{TAG}{'.'.join(labels[at:])}" for at in range(len(labels))]
    own = keys_of(pattern)
    return tuple(dict.fromkeys(key for key in keys if key not in own))
