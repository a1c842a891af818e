"""The operations and their params, as JSON Schema describes them too.

A schema cannot say everything (the grammar of a match, times in the future, `match` or `queue_ids`): what it refuses
the parser (parse.py) refuses too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleet.mta import operations as ops
from fleet.mta.params import kinds, values
from fleet.mta.params.kinds import Kind

ENTRY_FIELDS = (
    "queue_id", "state", "native_state", "arrival_time", "sender", "recipients", "size", "attempts", "next_attempt",
    "subject",
)  # fmt: skip
GROUPS = ("from", "from-domain", "to", "to-domain", "reason", "state", "age")


@dataclass(frozen=True, slots=True)
class QuarantineIds:
    """quarantine.restore and quarantine.erase before the ids are looked up: `ids` are UUIDs in canonical form."""

    name: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Param:
    """A field of params. `default` is JSON; None: there is none, and the field may be absent unless required."""

    kind: Kind
    required: bool = False
    default: Any = None

    def schema(self) -> dict[str, Any]:
        return self.kind.schema if self.default is None else {**self.kind.schema, "default": self.default}


Build = Callable[[dict[str, Any]], ops.Operation | QuarantineIds]


@dataclass(frozen=True, slots=True)
class OperationSpec:
    """An operation of the catalogue. `deadline`: seconds for one run. `single_instance`: always names one instance.
    `of_host`: it is done once on a host, whatever MTAs are there."""

    name: str
    description: str
    changes: bool
    deadline: int
    params: dict[str, Param]
    build: Build
    single_instance: bool = False
    of_host: bool = False
    choose_one: tuple[str, ...] = ()
    choose_some: tuple[str, ...] = ()

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of params."""
        shape: dict[str, Any] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "description": self.description,
            "properties": {name: param.schema() for name, param in self.params.items()},
            "required": [name for name, param in self.params.items() if param.required],
            "additionalProperties": False,
        }
        if self.choose_one:
            shape["oneOf"] = [{"required": [name]} for name in self.choose_one]
        if self.choose_some:
            shape["anyOf"] = [{"required": [name]} for name in self.choose_some]
        if "expires_at" in self.params:
            shape["not"] = {"required": ["expires_at", "for"]}
        return shape


def _plain(kind: Callable[..., ops.Operation]) -> Build:
    """Every parameter fills the attribute of its name."""
    return lambda values: kind(**values)


def _messages(kind: Callable[..., ops.ChangesMessages], *extra: str) -> Build:
    return lambda values: kind(
        ops.Selection(values.get("match"), values.get("queue_ids", ())),
        ops.Limits(values["max_messages"], values.get("max_fraction")),
        **{name: values[name] for name in extra},
    )


def _ids(name: str) -> Build:
    return lambda values: QuarantineIds(name, values["ids"])


def _smtp_probe(values: dict[str, Any]) -> ops.SmtpProbe:
    return ops.SmtpProbe(values["from"], values["to"])


def _message_trace(values: dict[str, Any]) -> ops.MessageTrace:
    names = {"from": "sender", "to": "recipient"}
    return ops.MessageTrace(**{names.get(name, name): value for name, value in values.items()})


def _sender_block(values: dict[str, Any]) -> ops.SenderBlock:
    code = values["code"]
    enhanced = values.get("enhanced", f"{code // 100}.7.1")
    return ops.SenderBlock(values["pattern"], values["action"], code, enhanced, values["text"])


_LIMITS = {
    "max_messages": Param(
        kinds.integer("Stop before changing more messages of any one queue than this.", 1, 1_000_000), default=10_000
    ),
    "max_fraction": Param(kinds.fraction("Stop before changing more than this part of any one queue.")),
}
_SELECTED = {"match": Param(values.MATCH), "queue_ids": Param(values.QUEUE_IDS), **_LIMITS}
_EITHER = ("match", "queue_ids")
_QUEUE_ID = {"queue_id": Param(values.QUEUE_ID, required=True)}
_IDS = {"ids": Param(values.UUIDS, required=True)}
_FLUSHED = {"match": Param(values.MATCH, required=True), **_LIMITS}
_EVERY_MATCH = Param(values.MATCH, default="ALL")
_WINDOW = {
    "since": Param(values.SINCE, default="24h"),
    "until": Param(values.UNTIL),
    "limit": Param(kinds.integer("The newest so many of each instance.", 1, 10_000), default=1000),
}


def _spec(
    kind: type[ops.Operation],
    description: str,
    params: dict[str, Param],
    build: Build,
    *,
    choose_one: tuple[str, ...] = (),
    choose_some: tuple[str, ...] = (),
) -> OperationSpec:
    return OperationSpec(
        name=kind.name,
        description=description,
        changes=kind.changes,
        deadline=kind.deadline,
        params=params,
        build=build,
        of_host=kind.of_host,
        single_instance="queue_id" in params and params["queue_id"].required,
        choose_one=_EITHER if "queue_ids" in params else choose_one,
        choose_some=choose_some,
    )


_SPECS = (
    _spec(ops.HostDiscover, "Which MTA instances a host has.", {}, _plain(ops.HostDiscover)),
    _spec(ops.HostCheck, "Whether a host has all that is needed, and what to do.", {}, _plain(ops.HostCheck)),
    _spec(
        ops.QueueList,
        "Queued messages, oldest or largest first.",
        {
            "match": _EVERY_MATCH,
            "limit": Param(kinds.integer("At most this many entries of each instance.", 1, 100_000), default=1000),
            "fields": Param(kinds.choices("Only these fields of an entry; subject only when asked.", ENTRY_FIELDS)),
            "order": Param(kinds.choice("age: oldest first. size: largest first.", ("age", "size")), default="age"),
        },
        _plain(ops.QueueList),
    ),
    _spec(
        ops.QueueSummary,
        "Counts, bytes and oldest message per group.",
        {
            "match": _EVERY_MATCH,
            "group_by": Param(kinds.choices("Independent lists, one for each word.", GROUPS), default=["from-domain"]),
            "top": Param(kinds.integer("At most this many groups of each list.", 1, 1000), default=10),
        },
        _plain(ops.QueueSummary),
    ),
    _spec(
        ops.MessageShow,
        "One message as the MTA keeps it.",
        {
            **_QUEUE_ID,
            "parts": Param(
                kinds.choices("What to show; without it envelope and headers.", ("envelope", "headers", "body")),
                default=["envelope", "headers"],
            ),
            "max_bytes": Param(kinds.size("Read at most this much of the message.", 16 << 20), default=262_144),
        },
        _plain(ops.MessageShow),
    ),
    _spec(
        ops.LogSearch,
        "Lines of the mail log, rotated files included, oldest first.",
        {"contains": Param(values.LOG_TEXT), "regex": Param(values.LOG_REGEX), **_WINDOW},
        _plain(ops.LogSearch),
        choose_one=("contains", "regex"),
    ),
    _spec(
        ops.MessageTrace,
        "What the mail log says became of messages: one row for each message and recipient, oldest first.",
        {
            "from": Param(values.address_pattern("Senders; <> is the null sender.")),
            "to": Param(values.address_pattern("Recipients, also as they were before an alias.")),
            "queue_id": Param(values.QUEUE_ID),
            "message_id": Param(values.MESSAGE_ID),
            **_WINDOW,
        },
        _message_trace,
        choose_some=("from", "to", "queue_id", "message_id"),
    ),
    _spec(
        ops.AddressTest,
        "How each instance would route mail to an address.",
        {"address": Param(kinds.address("user@domain"), required=True)},
        _plain(ops.AddressTest),
    ),
    _spec(
        ops.SmtpProbe,
        "What the next hop answers to a sender and a recipient; no message is sent.",
        {
            "from": Param(kinds.address("user@domain, or <> (the null sender).", null=True), required=True),
            "to": Param(kinds.address("user@domain"), required=True),
        },
        _smtp_probe,
    ),
    _spec(ops.BlockList, "Which senders are blocked now: ours and the administrator's.", {}, _plain(ops.BlockList)),
    _spec(
        ops.QueuePurge,
        "Take messages out of the queue, into quarantine or for good.",
        {
            **_SELECTED,
            "mode": Param(
                kinds.choice("quarantine can be undone, delete cannot.", ("quarantine", "delete")),
                default="quarantine",
            ),
            "keep": Param(kinds.duration("How long the quarantined copy is kept.", "1h", "90d"), default="7d"),
        },
        _messages(ops.QueuePurge, "mode", "keep"),
    ),
    _spec(ops.QueueHold, "Stop delivery of messages until released.", _SELECTED, _messages(ops.QueueHold)),
    _spec(ops.QueueRelease, "Free held messages.", _SELECTED, _messages(ops.QueueRelease)),
    _spec(
        ops.MessageDeliver,
        "Attempt exactly this message now.",
        {
            **_QUEUE_ID,
            "verbose": Param(kinds.boolean("With the SMTP dialogue where the MTA can show it."), default=False),
            "release": Param(kinds.boolean("Also when the message is on hold."), default=False),
        },
        _plain(ops.MessageDeliver),
    ),
    _spec(ops.QueueFlush, "Attempt all messages, or those to a domain, now.", _FLUSHED, _messages(ops.QueueFlush)),
    _spec(
        ops.QueueBounce,
        "Return messages to their senders.",
        {**_SELECTED, "notify": Param(kinds.boolean("Whether the sender gets the notice."), default=True)},
        _messages(ops.QueueBounce, "notify"),
    ),
    _spec(ops.QueueRequeue, "Pass messages through the MTA again.", _SELECTED, _messages(ops.QueueRequeue)),
    _spec(ops.QuarantineRestore, "Put quarantined messages back into the queue.", _IDS, _ids("quarantine.restore")),
    _spec(ops.QuarantineErase, "Erase quarantined messages for good.", _IDS, _ids("quarantine.erase")),
    _spec(
        ops.SenderBlock,
        "Refuse mail from a sender.",
        {
            "pattern": Param(values.PATTERN, required=True),
            "action": Param(
                kinds.choice("discard accepts and drops without a word.", ("reject", "discard")), default="reject"
            ),
            "code": Param(kinds.integer("SMTP code of the refusal; 4xx asks to try again.", 400, 599), default=550),
            "enhanced": Param(values.ENHANCED),
            "text": Param(values.REPLY_TEXT, default="Sender address blocked"),
            "expires_at": Param(values.EXPIRES_AT),
            "for": Param(kinds.duration("How long the block lasts.", "60s", "3650d")),
        },
        _sender_block,
    ),
    _spec(
        ops.SenderUnblock,
        "Accept mail from a sender again; removes only our own lines.",
        {"pattern": Param(values.PATTERN, required=True)},
        _plain(ops.SenderUnblock),
    ),
)

CATALOGUE: dict[str, OperationSpec] = {spec.name: spec for spec in _SPECS}
OF_HOSTS = frozenset(spec.name for spec in _SPECS if spec.of_host)
"""Those that no MTA can or cannot do."""
