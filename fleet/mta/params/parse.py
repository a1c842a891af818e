"""JSON params to operations, strictly: every field is known, typed and in range, or an error names it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fleet.match import Expression
from fleet.mta import operations as ops
from fleet.mta.params import values as limits
from fleet.mta.params.catalogue import CATALOGUE, OperationSpec, QuarantineIds
from fleet.mta.params.kinds import BadValue


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
class Parsed:
    """`operation`, and what does not reach the host: when a block ends. `single_instance`: it must name exactly one."""

    operation: ops.Operation | QuarantineIds
    expires_at: datetime | None = None
    single_instance: bool = False


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
        ParamError(name, "unknown_field", f"{spec.name} has no parameter {name[:80]!r}; expected {known}")
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
    if now < moment <= now + limits.MAX_AHEAD:
        return []
    detail = f"{moment.isoformat()} is not in the future" if moment <= now else "more than ten years ahead"
    return [ParamError("expires_at", "out_of_range", detail)]


def _in_the_past(values: dict[str, Any], now: datetime) -> list[ParamError]:
    since, until = values["since"], values.get("until", now)
    begin = now - since if isinstance(since, timedelta) else since
    if not now - limits.MAX_BACK <= begin <= now:
        return [ParamError("since", "out_of_range", f"{begin.isoformat()} is not within the last 366 days")]
    if not begin <= until <= now:
        return [ParamError("until", "out_of_range", f"{until.isoformat()} is not between since and now")]
    return []
