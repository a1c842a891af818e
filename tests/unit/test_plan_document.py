"""What a plan's digest hashes, and how a queue that went on is compared with it."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.mta.records import Fingerprint
from fleet.mta.steps import Diff, Plan
from jobs.rules.document import canonical, changed_part, digest_of_document, instances_of
from jobs.rules.drift import drift_of
from jobs.rules.plan import SAMPLE, PlanRow, summary_of

MESSAGES = tuple(Fingerprint(f"3F5A{n}", 1_700_000_000.5 + n, "a@b.c", 100, subject="offer") for n in range(3))


def row(*messages: Fingerprint, instance: str = "mx1/postfix", **fields: Any) -> PlanRow:
    plan = Plan(selected=messages, queue_total=10, notes=("it differs",), commands=(("postsuper", "-h"),), **fields)
    return PlanRow(instance, summary_of(plan), messages, [["192.0.2.1", 22]])


def parts(*rows: PlanRow, **fields: Any) -> dict[str, Any]:
    return {"reason": "loop", "params": {"match": "from:a@b.c"}, **fields, "instances": instances_of(rows)}


def test_all_that_a_reader_of_the_plan_reads_is_in_its_document() -> None:
    document = json.loads(canonical(parts(row(*MESSAGES))))
    (instance,) = document["instances"].values()
    assert set(instance) == {*summary_of(Plan()), "way", "messages"}
    assert instance["notes"] == ["it differs"]
    assert instance["messages"]["count"] == 3


def changes() -> list[Any]:
    """(what is changed of a plan's parts, the part that is named)."""
    first = MESSAGES[0]

    def of_instance(name: str, value: Any) -> Any:
        return lambda now: now["instances"]["mx1/postfix"].update({name: value})

    def with_messages(*messages: Fingerprint) -> Any:
        return lambda now: now["instances"].update(
            {
                "mx1/postfix": {
                    **now["instances"]["mx1/postfix"],
                    "messages": instances_of([row(*messages)])["mx1/postfix"]["messages"],
                }
            }
        )

    return [
        (lambda now: now.update(reason="another"), "reason"),
        (lambda now: now["params"].update(match="ALL"), "params"),
        (lambda now: now.pop("params"), "params"),
        (lambda now: now["instances"].update({"mx2/postfix": {}}), "instances"),
        (lambda now: now["instances"].clear(), "instances"),
        (of_instance("notes", []), "notes"),
        (of_instance("commands", [["rm"]]), "commands"),
        (of_instance("way", [["192.0.2.2", 22]]), "way"),
        (with_messages(*MESSAGES[1:]), "messages"),
        (with_messages(Fingerprint(first.queue_id, 1.0, "a@b.c", 100), *MESSAGES[1:]), "messages"),
        (
            with_messages(Fingerprint(first.queue_id, first.arrival_time, "a@b.c", 100, subject="x"), *MESSAGES[1:]),
            "messages",
        ),
    ]


@pytest.mark.parametrize(("change", "part"), changes())
def test_whatever_is_changed_of_it_is_found_and_named(change: Any, part: str) -> None:
    document, now = canonical(parts(row(*MESSAGES))), deepcopy(parts(row(*MESSAGES)))
    assert changed_part(document, now) == ""
    change(now)
    assert changed_part(document, now) == part
    assert digest_of_document(canonical(now)) != digest_of_document(document)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1), JSON, min_size=1, max_size=4), st.data())
def test_a_document_holds_for_what_it_was_made_of_and_for_nothing_else(made_of: dict[str, Any], data: Any) -> None:
    made_of = {f"part {name}": value for name, value in made_of.items()}
    document = canonical(made_of)
    assert changed_part(document, deepcopy(made_of)) == ""
    name, other = data.draw(st.sampled_from(sorted(made_of))), data.draw(JSON)
    changed = {**made_of, name: other}
    assert changed_part(document, changed) == ("" if canonical(changed) == document else name)


def test_a_part_that_a_later_version_adds_changes_no_plan_that_was_frozen_before() -> None:
    document = canonical(parts(row(*MESSAGES)))
    later = parts(row(*MESSAGES), window="night")
    later["instances"]["mx1/postfix"]["signature"] = "new"
    assert changed_part(document, later) == ""


def test_a_document_is_written_in_one_way_whatever_the_order() -> None:
    forward, backward = parts(row(*MESSAGES)), parts(row(*reversed(MESSAGES)))
    backward = dict(reversed(backward.items()))
    assert forward["instances"]["mx1/postfix"]["messages"] == backward["instances"]["mx1/postfix"]["messages"]
    assert (
        canonical({"a": 1, "b": "é\0\udcff"})
        == canonical({"b": "é\0\udcff", "a": 1})
        == r'{"a":1,"b":"\u00e9\u0000\udcff"}'
    )


def test_a_digest_is_what_sha256sum_says_of_the_document_below_its_heading() -> None:
    """printf 'mxfleet-plan-v2\\n{}' | sha256sum"""
    assert digest_of_document("{}") == "sha256:cb4610a017e2c80e7d8164dcb81925a377f78377d29451256792b798f01ef676"


def test_what_is_gone_new_or_another_message_since_is_counted_with_samples() -> None:
    kept, gone, changed = MESSAGES
    other = Fingerprint(changed.queue_id, 1.0, "x@y.z", 5)
    new = [Fingerprint(f"4A{n}", 2.0, "a@b.c", 7) for n in range(SAMPLE + 5)]
    found = drift_of(row(*MESSAGES), row(kept, other, *new))
    assert {name: found[name] for name in ("planned", "gone", "new", "changed")} == {
        "planned": 3, "gone": 1, "new": SAMPLE + 5, "changed": 1,
    }  # fmt: skip
    assert [message["queue_id"] for message in found["samples"]["gone"]] == [gone.queue_id]
    assert [message["sender"] for message in found["samples"]["changed"]] == ["x@y.z"]
    assert len(found["samples"]["new"]) == SAMPLE
    assert not found["files_changed"]


def test_a_message_that_is_held_by_now_is_the_same_message() -> None:
    held = [Fingerprint(m.queue_id, m.arrival_time, m.sender, m.size, "hold") for m in MESSAGES]
    found = drift_of(row(*MESSAGES), row(*held))
    assert (found["gone"], found["new"], found["changed"]) == (0, 0, 0)


def test_another_file_than_the_plan_shows_is_told() -> None:
    assert drift_of(row(), row(diffs=(Diff("/etc/postfix/x", "+a"),)))["files_changed"]
    assert drift_of(row(), row(wiring=True))["files_changed"]
