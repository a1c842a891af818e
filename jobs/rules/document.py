"""The document of a frozen plan: all that who decides on it reads, in named parts. Its digest hashes it. Pure.

What is stored later is compared with it part by part, by the parts that the document itself has, so that a part which a
later version adds changes no older plan.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from fleet.mta.records import Fingerprint
from jobs.rules.plan import PlanRow

Parts = dict[str, Any]
VERSION = 2
BY_INSTANCE = "instances"


def instances_of(rows: Iterable[PlanRow]) -> Parts:
    """{instance: what its plan comes to, how the host is reached, and its messages by their own digest}."""
    return {row.instance: {**row.summary, "way": row.way, "messages": _messages(row.messages)} for row in rows}


def _messages(messages: Iterable[Fingerprint]) -> Parts:
    """Ten thousand messages are one line of the document; their rows are beside it in the database anyway."""
    rows = sorted(
        [m.queue_id, m.arrival_time, m.sender, m.size, m.state, list(m.recipients), m.subject] for m in messages
    )
    return {"count": len(rows), "sha256": hashlib.sha256(canonical(rows).encode()).hexdigest()}


def canonical(value: Any) -> str:
    """JSON in one way of writing: names sorted, no blanks, nothing but ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of_document(document: str) -> str:
    """`sha256:...`, of no other kind of text."""
    return "sha256:" + hashlib.sha256(b"mxfleet-plan-v2\n" + document.encode()).hexdigest()


def changed_part(document: str, now: Parts) -> str:
    """The first part of the document that is not so any more, "" for none; which instance it is of is not told."""
    frozen, present = json.loads(document), json.loads(canonical(now))
    if wrong := _changed({name: part for name, part in frozen.items() if name != BY_INSTANCE}, present):
        return wrong
    there, here = frozen.get(BY_INSTANCE, {}), present.get(BY_INSTANCE, {})
    if there.keys() != here.keys():
        return BY_INSTANCE
    return next(filter(None, (_changed(parts, here[name]) for name, parts in there.items())), "")


def _changed(frozen: Parts, now: Parts) -> str:
    """By the text: to Python true is 1 is 1.0."""
    return next(
        (name for name, part in frozen.items() if name not in now or canonical(now[name]) != canonical(part)), ""
    )
