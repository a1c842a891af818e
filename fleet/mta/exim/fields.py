"""How Exim writes the fields of its log lines (spec.txt, "Log files"; deliver.c, receive.c, smtp_in.c).

`NAME=VALUE` and bare flags, a blank before each, in no order that we rely on; unknown ones pass. Texts of others stand
in values: what a client calls itself, a Message-ID, a remote host's words. A line with one name twice tells nothing.
"""

import re


class UnclearError(Exception):
    """The line has not the form of such a line, or could be read in two ways."""


WITHIN = r'[^"\\]*(?:\\.[^"\\]*)*'
# Without its end where syslog cut the line. A colon belongs to the text behind the fields.
VALUE = rf'<?"{WITHIN}(?:"\S*(?<!:)|\\?$)|\S*(?<!:)'
# The name that was looked up, what a client calls itself (in parentheses; it may be an address in brackets), and the
# address; DS: found with DNSSEC. A local transport has a name alone.
HOST = r"(?:[^\s()\[\]=]+ )?(?:DS )?(?:\([^)]*\) )?\[[^\]\s]*\](?::\d+)?|[^\s()\[\]]+(?<![:*])"
# A flag, or a further word of the name of an account.
WORD = (
    r"(?!(?:rejected|temporarily|RCPT|dropped|sender|defer|routing|mua_wrapper|for|from) )"
    r'[^\s=()\[\]<>":@]+(?=[ :]|$)'
)
# A star behind a host: over a connection that was open already. Where there is no field any more, all the rest.
FIELD = re.compile(
    rf" (?:ST=\S+ \([^)]*\)|([A-Za-z][A-Za-z0-9]*+\*?)=((?<= H=)(?:{HOST})|(?<! H=)(?:{VALUE}))\*?|{WORD})|(.+)",
    re.DOTALL,
)


def fields_of(text: str, start: int = 0) -> tuple[dict[str, str], str]:
    """The fields that begin at `start`, and what follows them. Raises UnclearError for a name that comes twice."""
    items = FIELD.findall(text, start)
    rest = items.pop()[2] if items and items[-1][2] else ""
    fields = {name: value for name, value, _ in items}
    flags = sum(not name for name, _, _ in items) if "" in fields else 0
    fields.pop("", None)
    if len(fields) + flags != len(items):
        raise UnclearError
    return fields, rest


def unwrapped(value: str) -> str:
    """A value without the quotes around it."""
    return value.removeprefix('"').removesuffix('"')
