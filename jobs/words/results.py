"""The headline of what a job came to, and what belongs to it: one function for each kind of merged result."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jobs.rules.state import JobState
from jobs.words.amounts import SHOWN, age, cell, count, named, number, share, size, time_of
from jobs.words.operations import operation

SEPARATOR = " · "
BESIDE = {
    "already": ("already so", "already so"),
    "already_gone": ("gone by itself", "gone by themselves"),
    "left_queue": ("gone when the deletion was read back: deleted or delivered",) * 2,
    "in_delivery": ("in delivery, left alone",) * 2,
    "left": ("as it was", "as they were"),
    "open": ("still open",) * 2,
    "unknown": ("unknown",) * 2,
    "unreported": ("not accounted for",) * 2,
}
"""What else became of messages, of one and of several."""


def is_over(job: Mapping[str, Any]) -> bool:
    """Whether the job has ended; a run of it may be unknown all the same."""
    return job["state"] in JobState.final()


def headline(job: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """The headline and what belongs to it."""
    result, name = job["result"], job["operation"]
    if not job["kept"]:
        return [f"{operation(name, params)}: {job['state'].replace('_', ' ')}; the results are kept no longer"]
    if job["drift"] is not None:
        return [_drift(job["drift"], job)]
    if result is None:
        done = job["runs"].get("succeeded", 0)
        return [f"{operation(name, params, is_done=True)} on {places(job, done)}"] if done else []
    if name == "queue.summary":
        return _counted(result, job)
    if name in ("queue.list", "message.trace", "log.search"):
        return [_rows(name, result, job)]
    if name in ("sender.block", "sender.unblock"):
        return _blocks(name, params, result, job)
    return _outcomes(result, job) if "outcomes" in result else _messages(name, params, result, job)


def places(job: Mapping[str, Any], some: int) -> str:
    """2 instances; of what is done on hosts 2 hosts."""
    return count(some, "host" if job["operation"].startswith("host.") else "instance")


def is_untouched(job: Mapping[str, Any]) -> bool:
    """Whether no run has begun to change anything: each waits, was called off, or has nothing to do."""
    return not set(job["runs"]) - {"pending", "planned", "cancelled", "unchanged"}


def _part(job: Mapping[str, Any], some: int) -> str:
    """298 of 300 instances."""
    total = sum(job["runs"].values())
    return places(job, total) if some == total else f"{number(some)} of {places(job, total)}"


def _answered(result: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    return _part(job, result["instances"])


def _verb(job: Mapping[str, Any]) -> str:
    return "would" if job["dry_run"] else "was to" if is_over(job) else "is to"


def _counted(result: Mapping[str, Any], job: Mapping[str, Any]) -> list[str]:
    total = result["total"]
    parts = [f"{count(total['count'], 'message')}, {size(total['bytes'])} on {_answered(result, job)}"]
    if total["oldest_at"] and result["taken_to"]:
        parts.append(f"oldest {age(_seconds(result['taken_to']) - _seconds(total['oldest_at']))}")
    if result["taken_to"]:
        parts.append(f"taken {time_of(result['taken_to'])}")
    return [SEPARATOR.join(parts), *(_groups(word, groups) for word, groups in result["groups"].items() if groups)]


def _groups(word: str, groups: Sequence[Mapping[str, Any]]) -> str:
    """How many others there are nobody knows: each instance tells the largest."""
    shown = [f"{cell(each['value'])} {_at_least(each)}{number(each['count'])}" for each in groups[:SHOWN]]
    return f"largest by {word}: " + SEPARATOR.join(shown)


def _at_least(group: Mapping[str, Any]) -> str:
    return "at least " if group["more_at_most"] else ""


def _rows(name: str, result: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    rows, one = {
        "queue.list": ("entries", "message"),
        "message.trace": ("rows", "row"),
        "log.search": ("lines", "line"),
    }[name]
    shown, matched, statuses = len(result[rows]), result["matched"], result.get("totals", {}).items()
    at_most = "at most " if "since" in result else ""  # instances that share a log each count it
    first = f"{number(shown)} of {at_most}{count(matched, one)}" if shown != matched else count(matched, one)
    totals = [f"{at_most if shown != matched else ''}{number(each)} {status}" for status, each in statuses if each]
    parts = [f"{first} on {_answered(result, job)}", *totals]
    if result.get("taken_to"):
        parts.append(f"taken {time_of(result['taken_to'])}")
    if result.get("since"):
        parts.append(f"since {time_of(result['since'])}")
    return SEPARATOR.join(parts)


def _drift(result: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    found = [f"{number(result[name])} {name}" for name in ("gone", "new", "changed") if result[name]]
    if result["files_changed"]:
        found.append(f"other files on {count(result['files_changed'], 'instance')}")
    told = ", ".join(found) or "no difference"
    return f"the plan of {count(result['planned'], 'message')}, compared on {_answered(result, job)}: {told}"


def _blocks(name: str, params: Mapping[str, Any], result: Mapping[str, Any], job: Mapping[str, Any]) -> list[str]:
    runs = job["runs"]
    planned = sum(runs.get(state, 0) for state in ("pending", "planned", "cancelled"))
    if planned and is_untouched(job):
        return [f"{_verb(job)} {operation(name, params)} on {_part(job, planned)}"]
    proven, total = runs.get("succeeded", 0) + runs.get("unchanged", 0), sum(runs.values())
    parts = [f"{operation(name, params, is_done=True)} on {number(proven)} of {places(job, total)}"]
    if runs.get("unchanged"):
        parts.append(f"{number(runs['unchanged'])} already so")
    states = [f"{number(each)} {state}" for state, each in result["states"].items() if state != "applied"]
    return [SEPARATOR.join(parts + states)]


def _outcomes(result: Mapping[str, Any], job: Mapping[str, Any]) -> list[str]:
    shown = result["outcomes"][:SHOWN]
    parts = [f"{cell(each['value'])}: {named(each['instances'], each['count'])}" for each in shown]
    rest = len(result["outcomes"]) - len(shown) + result["more"]
    return [
        f"answered by {_answered(result, job)}",
        SEPARATOR.join([*parts, *([f"and {number(rest)} more"] if rest else [])]),
    ]


def _messages(name: str, params: Mapping[str, Any], result: Mapping[str, Any], job: Mapping[str, Any]) -> list[str]:
    planned, asked, idle = result["planned"], result["asked"], job["runs"].get("unchanged", 0)
    if not result["instances"] or (is_untouched(job) and (planned or job["dry_run"])):
        return [_would(name, params, result, job)] if planned or result["instances"] else []
    about = count(asked, "message")
    if result["done"] != asked:
        about = f"{number(result['done'])} of {about}"
    acted = result["instances"] - idle
    told = operation(name, params, about, is_done=True)
    parts = [f"{told} on {_part(job, acted)}" if acted > 0 else told]
    parts += [count(result[key], *forms) for key, forms in BESIDE.items() if result[key]]
    return [SEPARATOR.join([*parts, *([f"nothing to do on {number(idle)}"] if idle else [])])]


def _would(name: str, params: Mapping[str, Any], result: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    """What is planned, and nobody has told yet what came of it."""
    about = f"{count(result['planned'], 'message')} ({size(result['bytes'])})"
    told = f"{_verb(job)} {operation(name, params, about)}"
    largest = result["largest_share"]
    if largest is None:
        return told
    part = share(largest["planned"], largest["queue_total"])
    return f"{told}{SEPARATOR}{part} of the queue of {cell(largest['instance'])}"


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
