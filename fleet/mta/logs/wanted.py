"""The criteria of a trace: which messages and recipients fit, and what the host looks for in the lines."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from fleet.match import wildcards
from fleet.match.texts import address_test
from fleet.mta.operations import MessageTrace

INTERNATIONAL = re.compile(r"(?:xn--|[^\s@.]*[^\x00-\x7f])[^\s@.]*", re.IGNORECASE)
"""A label of a domain that is logged in one form and may be asked for in the other, RFC 5890."""
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._+=/-")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The criteria of a trace; a row fits when it fits all that are given."""

    operation: MessageTrace
    is_sender: Callable[[str], bool]
    is_recipient: Callable[[str], bool]

    @classmethod
    def of(cls, operation: MessageTrace, as_logged: Callable[[str], str]) -> "Wanted":
        return cls(
            operation,
            address_test(as_logged(operation.sender)),
            address_test(as_logged(operation.recipient)),
        )

    def texts(self, unnamed: Sequence[str] = ()) -> tuple[str, ...]:
        """Of what a line about such a message contains one at least, in any case, so that the host can look for it.

        `unnamed`: what stands in lines about mail whose recipients they do not all name.
        """
        given = self.operation
        if named := given.queue_id or longest_plain(given.message_id):
            return (named,)
        sender, recipient = fixed_text(given.sender), fixed_text(given.recipient)
        return as_quoted(sender) if len(sender) >= len(recipient) else (*as_quoted(recipient), *unnamed)

    def has_message(self, queue_ids: Collection[str], message_id: str, sender: str | None) -> bool:
        """By all queue IDs that the message had on this host. `sender` None: not known."""
        given = self.operation
        if given.queue_id and given.queue_id not in queue_ids:
            return False
        if given.message_id and message_id.strip("<>").lower() != given.message_id.strip("<>").lower():
            return False
        return not given.sender or (sender is not None and self.is_sender(sender))

    def has_recipient(self, address: str, orig_to: str) -> bool:
        if not self.operation.recipient:
            return True
        return self.is_recipient(address) or bool(orig_to and self.is_recipient(orig_to))

    def may_be_in(self, line: str) -> bool:
        """Whether a line that was not understood may be about the recipient that is looked for."""
        return any(text.lower() in line.lower() for text in as_quoted(fixed_text(self.operation.recipient)))


def fixed_text(pattern: str) -> str:
    """The longest plain part of a pattern. The null sender is looked for as it is logged."""
    if pattern == "<>":
        return pattern
    literals = (token for token in wildcards.tokens(pattern) if isinstance(token, str))
    return max((longest_plain(INTERNATIONAL.sub(" ", literal)) for literal in literals), key=len, default="")


def as_quoted(text: str) -> tuple[str, ...]:
    """The plain part of an address, and how it stands where the local part was quoted without need."""
    local, at, domain = text.rpartition("@")
    return (text, f'{local}"@{domain}') if local and at else (text,)


def longest_plain(text: str) -> str:
    """The longest run of characters that no MTA writes otherwise in its log."""
    return max("".join(char if char in PLAIN else " " for char in text).split(), key=len, default="")
