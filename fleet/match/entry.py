"""What is judged: the parts of a queued message that an expression may look at. Structural types."""

from collections.abc import Sequence
from typing import Protocol


class Recipient(Protocol):
    """An envelope recipient. `state` 'delivered' is done and looked at no more; any other word is undelivered."""

    @property
    def address(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def state(self) -> str: ...


class Entry(Protocol):
    """A queued message as its MTA lists it.

    `state`: incoming, active, deferred, hold or maildrop; `native_state`: the MTA's own word. `arrival_time`: epoch
    seconds. `sender`: RFC 5321 form, the null sender is '<>'. `size`: bytes. `attempts` None: the MTA does not count.
    """

    @property
    def queue_id(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def native_state(self) -> str: ...
    @property
    def arrival_time(self) -> float: ...
    @property
    def sender(self) -> str: ...
    @property
    def recipients(self) -> Sequence[Recipient]: ...
    @property
    def size(self) -> int: ...
    @property
    def attempts(self) -> int | None: ...


class Content(Protocol):
    """What a listing does not show. `headers`: name, raw unfolded value. `body`: raw bytes, None when not fetched."""

    @property
    def headers(self) -> Sequence[tuple[str, str]]: ...
    @property
    def body(self) -> bytes | None: ...
