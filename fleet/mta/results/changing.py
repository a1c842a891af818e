"""What changes come to, and what is seen before and after them."""

from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta


class MessageCounts(TypedDict):
    """How many messages ended how. `left_queue`: gone when a deletion that was cut off was read back."""

    done: int
    already_gone: int
    left_queue: int
    in_delivery: int
    left: int


class MoreOfMessages(TypedDict, total=False):
    """`already`: messages that were as wanted before. `held`: queue IDs that a change left on hold when it was cut off.

    Of qmail: `service`: qmail-send's state afterwards; `reasons`: why a message was left, by queue ID; `delivered`:
    queue IDs that were delivered when they were to be bounced.
    """

    already: int
    held: list[str]
    service: str
    reasons: dict[str, str]
    delivered: list[str]


class MessagesResult(MessageCounts, MoreOfMessages):
    """What a change of messages came to. `asked`: messages that it was about."""

    asked: int
    notes: NotRequired[list[str]]


class MoreOfChanges(MoreOfMessages, total=False):
    """The same as adapters tell it. `places`: where messages lie in quarantine, by queue ID; not for answers."""

    places: dict[str, str]


class MessagesChanged(MessagesResult, MoreOfChanges):
    """The result as adapters tell it."""


class MessageSeen(TypedDict):
    """`state`: one of a queued message, or absent."""

    queue_id: str
    state: str


class MessagesSeen(TypedDict):
    """Messages in the queue, counted by their states; the first twenty by name."""

    count: int
    states: dict[str, int]
    messages: list[MessageSeen]


class RecipientAttempt(TypedDict):
    """What came of one recipient. `orig_to`: the address before an alias, or empty."""

    address: str
    outcome: str
    remote: str
    reply: str
    orig_to: str


class MessageDeliverResult(TypedDict, total=False):
    """How an attempt ended; without `outcome`, where none was seen to end. `dialogue`, `log`: lines."""

    outcome: Annotated[
        str, Meta(extra_json_schema={"enum": ["sent", "deferred", "bounced", "discarded", "left_queue"]})
    ]
    remote: str
    reply: str
    dialogue: list[str]
    log: list[str]
    recipients: list[RecipientAttempt]
    notes: list[str]


class SenderResult(TypedDict, total=False):
    """A block that was made or taken back. `file` or `map`: the list, with our `keys`. `still_refused_by`: keys of
    others that refuse the sender too. `overtaken`: it was no longer wanted, so nothing was done."""

    pattern: str
    file: str
    map: str
    keys: list[str]
    still_refused_by: list[str]
    notes: list[str]
    overtaken: bool


class ControlSeen(TypedDict):
    """What a sender that nobody blocks was answered."""

    sender: str
    recipient: str
    reply: str


class BlockedSeen(TypedDict):
    """What a blocked sender was answered."""

    sender: str
    code: str
    text: str


class DialogueSeen(TypedDict, total=False):
    """A dialogue without DATA. `not_provable`: why it proves nothing."""

    control: ControlSeen
    blocked: BlockedSeen
    not_provable: str


class ListenerSeen(TypedDict):
    """Where senders are answered. `not_asked`: why no dialogue was held there."""

    address: str
    port: int
    service: str
    reply: NotRequired[str]
    not_provable: NotRequired[str]
    not_asked: NotRequired[str]


class SenderSeen(DialogueSeen, total=False):
    """What the MTA answers the senders of a block, and what of our keys is in effect; empty before a change that had
    nothing to look at. `also`: further dialogues. `lookup`: the value, of a map; else a value for each key."""

    also: list[DialogueSeen]
    lookup: Any
    listeners: list[ListenerSeen]
