"""How Exim writes the fields of its log lines (spec.txt, "Log files"; deliver.c, receive.c, smtp_in.c).

`NAME=VALUE` and bare flags, a blank before each, in no order that we rely on; unknown ones pass. Texts of others stand
in values: what a client calls itself, a Message-ID, a remote host's words. A line that has twice what we take from it
tells nothing.
"""

import re


class UnclearError(Exception):
    """The line has not the form of such a line, or could be read in two ways."""


WITHIN = r'[^"\\]*(?:\\.[^"\\]*)*'
# Quotes stand around all of a value or a local part, and nowhere else: behind one in what a client calls itself, those
# that open a value would close it. Without an end where syslog cut the line. A colon belongs to what follows.
VALUE = rf'<?"{WITHIN}(?:"(?:@[^ "]*(?<!:))?(?=[ :]|$)|\\?$)|[^ "]*(?<!:)'
# The name that was looked up, what a client calls itself (in parentheses; it may be an address in brackets), and the
# address; DS: found with DNSSEC. A local transport has a name alone.
HOST = r"(?:[^ ()\[\]=]+ )?(?:DS )?(?:\([^)]*\) )?\[[^\] ]*\](?::\d+)?|[^ ()\[\]]+(?<![:*])"
# A flag, or a further word of the name of an account.
WORD = (
    r"(?!(?:rejected|temporarily|RCPT|dropped|sender|defer|routing|mua_wrapper|for|from) )"
    r'[^ =()\[\]<>":@]+(?=[ :]|$)'
)
# No field, where a line goes on so: a name that we take comes again, or a value has no form of a host.
AGAIN = re.compile(r" [A-Za-z][A-Za-z0-9]*\*?=")


def fields_after(head: str, *names: str, tail: str = "") -> re.Pattern[str]:
    """`head`, all fields behind it, and `tail`; the groups between are the values of `names` (expressions).

    The fields end where one of these comes twice.
    """
    first = re.compile(head).groups + 1
    # A star behind a host: over a connection that was open already.
    ours = "|".join(
        rf"{name}=(?({group})(?!)|({HOST if name == 'H' else VALUE})\*?)" for group, name in enumerate(names, first)
    )
    other = rf"(?!(?:{'|'.join(names)})=)[A-Za-z][A-Za-z0-9]*+\*?=(?:{VALUE})\*?"
    return re.compile(rf"{head}(?: (?:{ours}|ST=\S+ \([^)]*\)|{other}|{WORD}))*+{tail}", re.DOTALL)


def fields_of(form: re.Pattern[str], text: str, start: int = 0) -> tuple[tuple[str, ...], str]:
    """The groups of `form`, "" for what is not there, and what follows. Raises UnclearError."""
    return parts_of(form.match(text, start), text)


def parts_of(match: re.Match[str] | None, text: str) -> tuple[tuple[str, ...], str]:
    """As `fields_of`, of fields that were looked for already."""
    rest = text[match.end() :] if match else ""
    if match is None or (rest and AGAIN.match(rest)):
        raise UnclearError
    return match.groups(""), rest


def unwrapped(value: str) -> str:
    """A value without the quotes around it."""
    return value.removeprefix('"').removesuffix('"')
