"""What runs came to, merged: sums are those of the parts, their order does not matter, what may be missing is said."""

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.match import parse
from fleet.mta.operations import QueueSummary
from fleet.mta.queue.summary import OTHERS, Summary
from fleet.mta.records import QueueEntry, Recipient
from jobs.jsonvalues import readable, rfc3339
from jobs.rules.state import RunState
from jobs.summary import counts, rows
from jobs.summary.merge import Merged
from jobs.summary.part import NAMED, Part

NOW = 1_700_000_000.0
MESSAGES = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 500), st.integers(0, 400_000)), max_size=30)
QUEUES = st.lists(MESSAGES, min_size=1, max_size=6)


def part(number: int, result: Any = None, state: RunState = RunState.SUCCEEDED, **fields: Any) -> Part:
    host = f"mx{number:02}"
    fields.setdefault("customer", ("acme", "beta")[number % 2])
    text = "" if result is None else json.dumps(readable(result))
    return Part(f"{host}/postfix", host, state=state, result=text, **fields)


def merged(
    operation: str, parts: list[Part], params: dict[str, Any] | None = None, limit: int = 100, **fields: bool
) -> Merged:
    """The same whatever the order in which the parts come, down to the last note."""
    found = [Merged(operation, params or {}, limit, **fields) for _ in range(3)]
    for at, each in enumerate(found):
        for one in random.Random(at).sample(parts, len(parts)) if at else parts:
            each.add(one)
    first, *others = ((each.result(), each.notes(), each.not_done(), each.runs) for each in found)
    assert others == [first, first]
    return found[0]


def summarised(queue: list[tuple[str, int, int]], top: int) -> dict[str, Any]:
    """The result of one instance, as adapters make it."""
    operation = QueueSummary(parse("ALL"), ("from-domain", "to-domain", "age"), top)
    summary = Summary(operation, NOW)
    for at, (domain, size, age) in enumerate(queue):
        recipients = [Recipient(f"r@{each}.test") for each in {domain, "x", "y"}]
        summary.add(QueueEntry(f"Q{at}", "deferred", "deferred", NOW - age, f"s@{domain}.test", recipients, size))
    return {**summary.as_json(), "taken_at": NOW, "refused": 1, "notes": []}


@settings(max_examples=25, deadline=None)
@given(QUEUES)
def test_counts_of_whole_lists_are_those_of_one_queue_with_all_messages(queues: list[Any]) -> None:
    parts = [part(at, summarised(queue, 1000)) for at, queue in enumerate(queues)]
    result = merged("queue.summary", parts, {"top": 1000}).result()
    whole = readable(summarised([message for queue in queues for message in queue], 1000))
    assert (result["total"], result["ages"]) == (whole["total"], whole["ages"])
    for word, groups in whole["groups"].items():
        assert result["groups"][word] == [{**group, "more_at_most": 0} for group in groups]
    assert (result["instances"], result["refused"]) == (len(queues), len(queues))


@settings(max_examples=25, deadline=None)
@given(QUEUES, st.integers(1, 4))
def test_of_cut_lists_no_group_is_larger_than_told_and_what_may_be_missing(queues: list[Any], top: int) -> None:
    parts = [part(at, summarised(queue, top)) for at, queue in enumerate(queues)]
    result = merged("queue.summary", parts, {"top": top}).result()
    whole = summarised([message for queue in queues for message in queue], 1000)
    real = {group["value"]: group["count"] for group in whole["groups"]["from-domain"]}
    assert len(result["groups"]["from-domain"]) == min(top, len(real))
    for group in result["groups"]["from-domain"]:
        assert group["count"] <= real[group["value"]] <= group["count"] + group["more_at_most"]


@settings(max_examples=25, deadline=None)
@given(QUEUES)
def test_customers_sum_up_to_the_whole(queues: list[Any]) -> None:
    parts = [part(at, summarised(queue, 1000)) for at, queue in enumerate(queues)]
    result = merged("queue.summary", parts, {"top": 1000}).result()
    for name in ("count", "bytes"):
        assert sum(each["total"][name] for each in result["customers"]) == result["total"][name]
    assert sum(each["instances"] for each in result["customers"]) == result["instances"]


def test_of_a_customer_the_first_groups_of_each_instance_are_read_and_the_others_may_be_missing() -> None:
    def result(*groups: tuple[str, int]) -> dict[str, Any]:
        each = [{"value": value, "count": count, "bytes": 0, "oldest_at": None, "ages": {}} for value, count in groups]
        return {"total": {"count": 0, "bytes": 0}, "groups": {"from": each}, "ages": {}}

    parts = [part(2, result(*((f"g{at}", 100 - at) for at in range(60)))), part(4, result(("g55", 500)))]
    found = merged("queue.summary", parts, {"top": 1000}).result()
    assert (found["groups"]["from"][0]["count"], found["groups"]["from"][0]["more_at_most"]) == (545, 0)
    [customer] = found["customers"]
    first, *others = customer["groups"]["from"]
    assert (first["value"], first["count"], first["more_at_most"]) == ("g55", 500, 100 - counts.READ_OF_CUSTOMER + 1)
    assert len(others) == counts.TOP_OF_CUSTOMER - 1


def test_groups_that_were_dropped_while_merging_are_counted_as_what_may_be_missing() -> None:
    groups = counts.Groups(top=2, shown=2, kept=4)
    for value, count in (("a", 9), ("b", 8), ("c", 3), ("d", 2), ("e", 1)):
        groups.add([counts.Group(count=count, bytes=0, value=value)])
    groups.add([counts.Group(count=7, bytes=0, value="d")])
    assert [(group["value"], group["count"], group["more_at_most"]) for group in groups.as_json()] == [
        ("a", 9, 0), ("b", 8, 0),
    ]  # fmt: skip
    groups.add([counts.Group(count=5, bytes=0, value="d")])
    first, _ = groups.as_json()
    assert (first["value"], first["count"], first["more_at_most"]) == ("d", 12, 3)


def test_what_an_instance_put_together_may_be_any_other_group() -> None:
    listed = [counts.Group(count=n, bytes=0, value=value) for value, n in ((OTHERS, 40), ("a", 5), ("b", 4))]
    assert counts.most_untold(listed, 3) == 40
    assert counts.most_untold(listed, 4) == 0


def listing(entries: list[tuple[int, int]], *, by_size: bool, cut: int = 0) -> dict[str, Any]:
    """The result of one instance: entries of (arrival, size), best first."""
    ordered = sorted(entries, key=lambda entry: -entry[1] if by_size else entry[0])
    shown = [
        {"queue_id": f"Q{at}", "arrival_time": NOW + time / 4, "size": size} for at, (time, size) in enumerate(ordered)
    ]
    matched = len(shown) + cut
    return {"entries": shown, "total": matched + 5, "matched": matched, "truncated": cut > 0, "taken_at": NOW}


ENTRIES = st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12), max_size=6)


@settings(max_examples=25, deadline=None)
@given(ENTRIES, st.booleans(), st.integers(1, 20), st.sampled_from([0, 3]))
def test_listings_are_one_in_the_order_that_was_asked(lists: Any, by_size: bool, limit: int, cut: int) -> None:
    parts = [part(at, listing(entries, by_size=by_size, cut=cut)) for at, entries in enumerate(lists)]
    result = merged("queue.list", parts, {"order": "size" if by_size else "age"}, limit).result()
    told = [(entry["arrival_time"], entry["size"]) for entry in result["entries"]]
    every = [(rfc3339(NOW + time / 4), size) for entries in lists for time, size in entries]
    best = sorted((-size if by_size else time[:-1]) for time, size in every)[:limit]
    assert [(-size if by_size else time[:-1]) for time, size in told] == best
    assert result["matched"] == len(every) + cut * len(lists)
    assert result["truncated"] == (len(told) < result["matched"])
    assert all(entry["instance"].endswith("/postfix") for entry in result["entries"])


def test_what_the_order_goes_by_may_not_have_been_asked_for() -> None:
    parts = [part(at, {**listing([], by_size=False), "entries": [{"queue_id": "Q"}]}) for at in (2, 1)]
    result = merged("queue.list", parts, {"order": "age", "fields": ["sender"]}).result()
    assert result["order"] == "instance"
    assert [entry["instance"] for entry in result["entries"]] == ["mx01/postfix", "mx02/postfix"]


def test_rows_end_before_their_limit_where_they_are_heavy() -> None:
    heavy = [{"queue_id": f"Q{at}", "arrival_time": NOW + at, "subject": "x" * (1 << 20)} for at in range(4)]
    parts = [
        part(n, {"entries": heavy, "total": 4, "matched": 4, "truncated": False, "taken_at": NOW}) for n in range(6)
    ]
    result = merged("queue.list", parts, {}, 1000).result()
    assert (len(result["entries"]), result["truncated"]) == (rows.HEAVY >> 20, True)


def traced(times: list[int], **fields: Any) -> dict[str, Any]:
    found = [{"time": NOW + time, "queue_id": f"Q{time}", "status": "sent", "instance": ""} for time in sorted(times)]
    told = {"rows": found, "totals": {"sent": len(times)}, "matched": len(times), "truncated": False}
    return {**told, "since": NOW, "until": NOW + 100, "notes": [], **fields}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), max_size=12, unique=True), max_size=6), st.integers(1, 20))
def test_traces_are_joined_in_time_and_the_newest_are_kept(lists: list[list[int]], limit: int) -> None:
    parts = [part(at, traced(times)) for at, times in enumerate(lists)]
    result = merged("message.trace", parts, {}, limit).result()
    every = sorted(time for times in lists for time in times)
    assert [row["queue_id"] for row in result["rows"]] == [f"Q{time}" for time in every[-limit:]]
    assert (result["totals"].get("sent", 0), result["truncated"]) == (len(every), len(every) > limit)


def test_a_row_of_a_log_that_two_instances_share_is_one() -> None:
    result = traced([1, 2])
    both = [
        Part(f"mx1/{name}", "mx1", "acme", RunState.SUCCEEDED, result=json.dumps(readable(result))) for name in "ba"
    ]
    other = part(2, traced([2]))
    found = merged("message.trace", [*both, other]).result()
    told = [(row["instance"], row["queue_id"], row["log_name"]) for row in found["rows"]]
    assert told == [("mx1/a", "Q1", ""), ("mx02/postfix", "Q2", ""), ("mx1/a", "Q2", "")]
    assert (found["matched"], found["totals"]) == (3, {"sent": 3})
    cut = merged("message.trace", [*both, other], {}, 2).result()
    assert (cut["truncated"], cut["matched"], cut["totals"]) == (True, 5, {"sent": 5})


def test_equal_lines_of_one_log_stay_as_many() -> None:
    line = {"time": NOW, "line": "x", "file": "/var/log/mail.log"}
    result = {"lines": [line, line], "matched": 2, "truncated": False, "since": NOW, "until": NOW}
    found = merged("log.search", [part(1, result)]).result()
    assert [each["line"] for each in found["lines"]] == ["x", "x"]


def plan(messages: int, queue_total: int = 100) -> str:
    return json.dumps({"counts": {"messages": messages, "bytes": 10 * messages}, "queue_total": queue_total})


RUNS = st.lists(
    st.tuples(st.sampled_from(RunState), st.integers(0, 50), st.lists(st.integers(0, 9), min_size=5, max_size=5)),
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(RUNS)
def test_every_planned_message_is_told_of_or_open_or_unknown(runs: list[Any]) -> None:
    names = ("done", "already_gone", "left_queue", "in_delivery", "left")
    parts, asked = [], 0
    for at, (state, messages, counted) in enumerate(runs):
        told = state in (RunState.SUCCEEDED, RunState.UNCHANGED)
        asked += sum(counted) if told else 0
        result = {"asked": sum(counted), **dict(zip(names, counted, strict=True))} if told else None
        parts.append(part(at, result, state, plan=plan(sum(counted) if told else messages)))
    found = merged("queue.hold", parts).result()
    dry = sum(messages for state, messages, _ in runs if state == RunState.PLANNED)
    assert found["asked"] == asked == sum(found[name] for name in names)
    assert found["planned"] == asked + dry + sum(found[name] for name in ("open", "unknown", "unreported"))
    assert found["bytes"] == 10 * found["planned"]
    for name in ("asked", "planned", "unknown", *names):
        assert found[name] == sum(each[name] for each in found["customers"])


def test_the_largest_share_is_of_one_queue() -> None:
    parts = [part(1, state=RunState.PENDING, plan=plan(90, 100)), part(2, state=RunState.PENDING, plan=plan(95, 1000))]
    largest = merged("queue.purge", parts).result()["largest_share"]
    assert largest == {"instance": "mx01/postfix", "planned": 90, "queue_total": 100}


def test_what_did_not_answer_is_named_by_state_and_code_the_unknown_first() -> None:
    parts = [
        part(1, state=RunState.PENDING),
        part(2, state=RunState.UNREACHABLE, error={"code": "auth_failed", "hint": "look at the key"}),
        part(3, state=RunState.UNREACHABLE, error={"code": "unreachable", "hint": ""}),
        part(4, state=RunState.UNREACHABLE, error={"code": "auth_failed", "hint": "look at the key"}),
        part(5, state=RunState.UNKNOWN, error={"code": "timeout", "hint": ""}),
        part(6, {"asked": 0}),
    ]
    found = merged("queue.hold", parts).not_done()
    assert [(each["state"], each["code"], each["instances"]) for each in found] == [
        ("unknown", "timeout", ["mx05/postfix"]),
        ("unreachable", "auth_failed", ["mx02/postfix", "mx04/postfix"]),
        ("unreachable", "unreachable", ["mx03/postfix"]),
        ("pending", None, ["mx01/postfix"]),
    ]
    assert [each["hint"] for each in found] == ["", "look at the key", "", ""]


def test_notes_are_grouped_by_text_with_their_instances() -> None:
    parts = [
        part(at, {"asked": 0, "notes": ["same", f"own {at}"]}, plan=json.dumps({"notes": ["same", "meaning"]}))
        for at in range(NAMED + 20)
    ]
    found = merged("queue.hold", parts)
    first, second, third = found.notes()[:3]
    assert (first["text"], first["count"], len(first["instances"])) == ("meaning", NAMED + 20, NAMED)
    assert (second["text"], second["count"], second["instances"][0]) == ("same", NAMED + 20, "mx00/postfix")
    assert (third["text"], third["instances"]) == ("own 0", ["mx00/postfix"])
    assert len(found.notes()) + found.more_notes == NAMED + 22


def test_differences_from_a_plan_are_summed() -> None:
    same = {"planned": 4, "gone": 0, "new": 0, "changed": 0, "files_changed": False, "samples": {}}
    parts = [part(1, same), part(2, {**same, "gone": 2, "new": 1}), part(3, {**same, "files_changed": True})]
    found = merged("queue.purge", parts, is_drift=True).result()
    assert (found["planned"], found["gone"], found["new"], found["files_changed"]) == (12, 2, 1, 1)
    assert (found["instances"], found["differing"], found["named"]) == (3, 2, ["mx02/postfix", "mx03/postfix"])


def test_blocks_are_told_instance_by_instance() -> None:
    parts = [
        part(1, {"pattern": "a@b.c"}, block=("applied", "")),
        part(2, state=RunState.UNREACHABLE, block=("pending", "x" * 500)),
        part(3, state=RunState.UNSUPPORTED),
    ]
    found = merged("sender.block", parts).result()
    assert found["states"] == {"applied": 1, "pending": 1}
    assert [(each["instance"], each["run"], each["state"]) for each in found["instances"]] == [
        ("mx01/postfix", "succeeded", "applied"),
        ("mx02/postfix", "unreachable", "pending"),
        ("mx03/postfix", "unsupported", None),
    ]
    assert len(found["instances"][1]["detail"]) == 200


def test_instances_that_came_to_the_same_stand_together() -> None:
    parts = [part(at, {"verdict": verdict}) for at, verdict in enumerate(["accepted", "refused", "accepted"])]
    found = merged("smtp.probe", [*parts, part(9, state=RunState.FAILED)]).result()
    assert found["instances"] == 3
    assert found["outcomes"] == [
        {"value": "accepted", "count": 2, "instances": ["mx00/postfix", "mx02/postfix"]},
        {"value": "refused", "count": 1, "instances": ["mx01/postfix"]},
    ]


def test_hosts_that_lack_the_same_stand_together() -> None:
    def of(*oks: bool | None) -> dict[str, Any]:
        checks = [{"name": name, "ok": ok} for name, ok in zip(("scripts", "sudo"), oks, strict=True)]
        return {"ok": all(oks), "checks": checks, "notes": []}

    found = merged("host.check", [part(1, of(True, True)), part(2, of(False, None)), part(3, of(False, True))]).result()
    assert {each["value"]: each["count"] for each in found["outcomes"]} == {
        "ok": 1, "scripts amiss": 2, "sudo not found out": 1,
    }  # fmt: skip


def test_one_message_shown_is_not_merged() -> None:
    assert merged("message.show", [part(1, {"queue_id": "Q"})]).result() is None
