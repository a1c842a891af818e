"""JSON params to operations, strictly: every field is known, typed and in range, or an error names it.

`CATALOGUE` describes the same fields as JSON Schema. A schema cannot say everything (the grammar of a match, times in
the future, `match` or `queue_ids`): what it refuses the parser refuses too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fleet.match import Expression
from fleet.mta import operations as ops
from fleet.mta.params import kinds as kinds
from fleet.mta.params.kinds import BadValue, Kind

ENTRY_FIELDS = (
    "queue_id", "state", "native_state", "arrival_time", "sender", "recipients", "size", "attempts", "next_attempt",
    "subject",
)  # fmt: skip
GROUPS = ("from", "from-domain", "to", "to-domain", "reason", "state", "age")


@dataclass(frozen=True, slots=True)
class ParamError:
    """One thing wrong with params. `field`: its place below params ("queue_ids[3]"), "" for params as a whole."""

    field: str
    code: str
    detail: str


class ParamErrors(ValueError):
    """Everything that is wrong with params, at least one ParamError."""

    def __init__(self, errors: list[ParamError]) -> None:
        super().__init__("; ".join(f"{error.field}: {error.detail}" for error in errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class QuarantineIds:
    """quarantine.restore and quarantine.erase before the ids are looked up: `ids` are UUIDs in canonical form."""

    name: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parsed:
    """`operation`, and what does not reach the host: when a block ends. `single_instance`: it must name exactly one."""

    operation: ops.Operation | QuarantineIds
    expires_at: datetime | None = None
    single_instance: bool = False


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
    """An operation of the catalogue. `deadline`: seconds for one run. `single_instance`: always names one instance."""

    name: str
    description: str
    changes: bool
    deadline: int
    params: dict[str, Param]
    build: Build
    single_instance: bool = False
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


def parse_params(operation_name: str, params: Any, *, now: datetime) -> Parsed:
    """The operation that `params` (a JSON object) ask for. `now`: aware, for `for` and `expires_at`.

    Raises ParamErrors with every error found, KeyError for an operation that is not in the catalogue.
    """
    spec = CATALOGUE[operation_name]
    if not isinstance(params, dict):
        raise ParamErrors([ParamError("", "wrong_type", "expected an object of parameters")])
    values, errors = _read(spec, params)
    errors += _cross_checks(spec, params, values, now)
    if errors:
        raise ParamErrors(errors)
    expires_at = values.get("expires_at")
    if "for" in values:
        expires_at = now + timedelta(seconds=values["for"])
    single = spec.single_instance or bool(values.get("queue_ids"))
    return Parsed(spec.build(values), expires_at, single)


def _read(spec: OperationSpec, params: dict[str, Any]) -> tuple[dict[str, Any], list[ParamError]]:
    known = ", ".join(spec.params) or "no parameters at all"
    errors = [
        ParamError(name, "unknown_field", f"{spec.name} has no parameter {name!r}; expected {known}")
        for name in params
        if name not in spec.params
    ]
    values = {}
    for name, param in spec.params.items():
        given = params.get(name, param.default)
        if name not in params and given is None:
            if param.required:
                errors.append(ParamError(name, "required", f"{spec.name} needs {name}"))
            continue
        try:
            values[name] = param.kind.parse(given)
        except BadValue as error:
            place = name if error.index is None else f"{name}[{error.index}]"
            errors.append(ParamError(place, error.code, error.detail))
    return values, errors


def _cross_checks(
    spec: OperationSpec, params: dict[str, Any], values: dict[str, Any], now: datetime
) -> list[ParamError]:
    errors = []
    if spec.choose_one:
        errors += _one_of(spec.choose_one, params)
    if spec.choose_some and not any(name in params for name in spec.choose_some):
        errors.append(ParamError(spec.choose_some[0], "required", f"give {' or '.join(spec.choose_some)}"))
    if "since" in values:
        errors += _in_the_past(values, now)
    if spec.changes and isinstance(values.get("match"), Expression):
        errors += _too_wide(values["match"])
        if spec.name == ops.QueueFlush.name:
            errors += _flushable(values["match"])
    if "enhanced" in values and "code" in values and values["enhanced"][0] != str(values["code"])[0]:
        detail = f"the class of {values['enhanced']} is not the one of {values['code']} (RFC 3463 2)"
        errors.append(ParamError("enhanced", "bad_status", detail))
    if "expires_at" in params and "for" in params:
        errors.append(ParamError("for", "mutually_exclusive", "give expires_at or for, not both"))
    if "expires_at" in values:
        errors += _in_the_future(values["expires_at"], now)
    return errors


def _one_of(names: tuple[str, ...], params: dict[str, Any]) -> list[ParamError]:
    given = [name for name in names if name in params]
    if not given:
        return [ParamError(names[0], "required", f"give {' or '.join(names)}")]
    if len(given) > 1:
        return [ParamError(given[1], "mutually_exclusive", f"give {' or '.join(names)}, not both")]
    return []


def _too_wide(expression: Expression) -> list[ParamError]:
    if expression.matches_everything() and not expression.is_all:
        return [ParamError("match", "matches_all", "this is true for every message; say ALL when that is meant")]
    return []


def _flushable(expression: Expression) -> list[ParamError]:
    if expression.is_all or expression.fields == {"to-domain"}:
        return []
    return [
        ParamError("match", "bad_pattern", "queue.flush takes ALL or to-domain: terms, as the MTAs flush no others")
    ]


def _in_the_future(moment: datetime, now: datetime) -> list[ParamError]:
    if now < moment <= now + kinds.MAX_AHEAD:
        return []
    detail = f"{moment.isoformat()} is not in the future" if moment <= now else "more than ten years ahead"
    return [ParamError("expires_at", "out_of_range", detail)]


def _in_the_past(values: dict[str, Any], now: datetime) -> list[ParamError]:
    since, until = values["since"], values.get("until", now)
    begin = now - since if isinstance(since, timedelta) else since
    if not now - kinds.MAX_BACK <= begin <= now:
        return [ParamError("since", "out_of_range", f"{begin.isoformat()} is not within the last 366 days")]
    if not begin <= until <= now:
        return [ParamError("until", "out_of_range", f"{until.isoformat()} is not between since and now")]
    return []


def _selection(values: dict[str, Any]) -> ops.Selection:
    return ops.Selection(values.get("match"), values.get("queue_ids", ()))


def _limits(values: dict[str, Any]) -> ops.Limits:
    return ops.Limits(values["max_messages"], values.get("max_fraction"))


def _plain(kind: Callable[..., ops.Operation]) -> Build:
    """Every parameter fills the attribute of its name."""
    return lambda values: kind(**values)


def _messages(kind: Callable[..., ops.ChangesMessages], *extra: str) -> Build:
    return lambda values: kind(_selection(values), _limits(values), **{name: values[name] for name in extra})


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
_SELECTED = {"match": Param(kinds.MATCH), "queue_ids": Param(kinds.QUEUE_IDS), **_LIMITS}
_EITHER = ("match", "queue_ids")
_QUEUE_ID = {"queue_id": Param(kinds.QUEUE_ID, required=True)}
_IDS = {"ids": Param(kinds.UUIDS, required=True)}
_FLUSHED = {"match": Param(kinds.MATCH, required=True), **_LIMITS}
_EVERY_MATCH = Param(kinds.MATCH, default="ALL")
_WINDOW = {
    "since": Param(kinds.SINCE, default="24h"),
    "until": Param(kinds.UNTIL),
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
        single_instance="queue_id" in params and params["queue_id"].required,
        choose_one=_EITHER if "queue_ids" in params else choose_one,
        choose_some=choose_some,
    )


_SPECS = (
    _spec(ops.HostDiscover, "Which MTA instances a host has.", {}, _plain(ops.HostDiscover)),
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
                kinds.choices("What to show.", ("envelope", "headers", "body")), default=["envelope", "headers"]
            ),
            "max_bytes": Param(kinds.size("Read at most this much of the message.", 16 << 20), default=262_144),
        },
        _plain(ops.MessageShow),
    ),
    _spec(
        ops.LogSearch,
        "Lines of the mail log, rotated files included, oldest first.",
        {"contains": Param(kinds.LOG_TEXT), "regex": Param(kinds.LOG_REGEX), **_WINDOW},
        _plain(ops.LogSearch),
        choose_one=("contains", "regex"),
    ),
    _spec(
        ops.MessageTrace,
        "What the mail log says became of messages: one row for each message and recipient, oldest first.",
        {
            "from": Param(kinds.address_pattern("Senders; <> is the null sender.")),
            "to": Param(kinds.address_pattern("Recipients, also as they were before an alias.")),
            "queue_id": Param(kinds.QUEUE_ID),
            "message_id": Param(kinds.MESSAGE_ID),
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
            "pattern": Param(kinds.PATTERN, required=True),
            "action": Param(
                kinds.choice("discard accepts and drops without a word.", ("reject", "discard")), default="reject"
            ),
            "code": Param(kinds.integer("SMTP code of the refusal; 4xx asks to try again.", 400, 599), default=550),
            "enhanced": Param(kinds.ENHANCED),
            "text": Param(kinds.REPLY_TEXT, default="Sender address blocked"),
            "expires_at": Param(kinds.EXPIRES_AT),
            "for": Param(kinds.duration("How long the block lasts.", "60s", "3650d")),
        },
        _sender_block,
    ),
    _spec(
        ops.SenderUnblock,
        "Accept mail from a sender again; removes only our own lines.",
        {"pattern": Param(kinds.PATTERN, required=True)},
        _plain(ops.SenderUnblock),
    ),
)

CATALOGUE: dict[str, OperationSpec] = {spec.name: spec for spec in _SPECS}
