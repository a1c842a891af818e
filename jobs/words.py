"""What we say to people, in their words: counts, sizes, ages, operations, and what a job came to. Pure.

Console, chat, tickets and reports lay these out, and say nothing of their own. What nobody knows is said first; a
share is never rounded up to all, a group that may be larger is "at least". Texts of mail and hosts are escaped and cut.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from jobs.rules.state import JobState

CELL = 75
"""Characters of a text that others chose."""
LONGEST = 3000
"""Characters of a whole: a section of Slack takes no more."""
SHOWN = 3
"""Of groups, notes and instances that are named; of the others how many they are."""
SEPARATOR = " · "
HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Controls, and what changes the direction of a text or is not seen."""

SAID = {
    "host.discover": ("discover", "discovered"),
    "host.check": ("check", "checked"),
    "queue.list": ("list the queue", "listed the queue"),
    "queue.summary": ("count the queue", "counted the queue"),
    "message.show": ("show a message", "showed a message"),
    "log.search": ("search the log", "searched the log"),
    "message.trace": ("trace messages", "traced messages"),
    "address.test": ("test an address", "tested an address"),
    "smtp.probe": ("ask the next hop", "asked the next hop"),
    "block.list": ("list blocks", "listed blocks"),
    "queue.purge": ("purge {} to quarantine", "purged {} to quarantine"),
    "queue.hold": ("hold {}", "held {}"),
    "queue.release": ("release {}", "released {}"),
    "message.deliver": ("deliver a message now", "tried to deliver a message"),
    "queue.flush": ("try delivery of {} now", "tried delivery of {}"),
    "queue.bounce": ("return {} to the sender", "returned {} to the sender"),
    "queue.requeue": ("requeue {}", "requeued {}"),
    "quarantine.restore": ("put {} back from quarantine", "put {} back from quarantine"),
    "quarantine.erase": ("erase {} from quarantine for good", "erased {} from quarantine for good"),
    "sender.block": ("block {}", "blocked {}"),
    "sender.unblock": ("unblock {}", "unblocked {}"),
}
"""What each operation is called: asked for, and done. {}: what it is about."""
DELETE = ("delete {} for good", "deleted {} for good")
SIGNS = {"unknown": "?", "failed": "✗", "unreachable": "✗", "unsupported": "–", "cancelled": "–"}
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


def cell(text: str) -> str:
    """A text of others on one line: what is not seen is spelled out (`\\u202e`), the middle of a long one left out."""
    shown = HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return shown if len(shown) <= CELL else f"{shown[: CELL - 25]}…{shown[-24:]}"


def number(value: int) -> str:
    """4,812."""
    return f"{value:,}"


def count(value: int, one: str, many: str = "") -> str:
    """1 message, 4,812 messages; `many` where it is not just an s more."""
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


def size(octets: int) -> str:
    """34 MiB, rounded down."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if octets >= 1 << power:
            whole = octets >> power
            return f"{whole} {unit}" if whole >= 10 else f"{(octets * 10 >> power) / 10:.1f} {unit}"
    return count(octets, "byte")


def age(seconds: float) -> str:
    """6 h, rounded down."""
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def share(part: int, whole: int) -> str:
    """98 %, never all or nothing that is not."""
    percent = part * 100 // whole if whole else 0
    return "under 1 %" if part and not percent else f"{percent} %"


def time_of(text: str) -> str:
    """2026-11-30 14:03:22 UTC, of a time as answers have it."""
    return f"{text[:10]} {text[11:19]} UTC"


def named(names: Sequence[str], total: int | None = None) -> str:
    """mx1, mx2, mx3 and 4 more; `total`: how many there are where not all are given."""
    first = ", ".join(cell(name) for name in names[:SHOWN])
    rest = (len(names) if total is None else total) - len(names[:SHOWN])
    return f"{first} and {number(rest)} more" if rest > 0 else first


def operation(name: str, params: Mapping[str, Any], about: str = "", *, is_done: bool = False) -> str:
    """purge 3 messages to quarantine; `is_done`: purged 3 messages to quarantine."""
    forms = DELETE if name == "queue.purge" and params.get("mode") == "delete" else SAID[name]
    if name.startswith("sender."):
        about = cell(str(params.get("pattern") or "the sender"))
    return forms[is_done].format(about or "messages")


def lines_of(job: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """What a job came to, as a chat or a ticket shows it. `job`: as `jobs/{id}/summary/` has it."""
    bad = {state: [each for each in job["not_done"] if each["state"] == state] for state in SIGNS}
    lines = [_unknown(job, bad.pop("unknown")), _progress(job), *_result(job, params)]
    lines += [_not_done(state, entries) for state, entries in bad.items()]
    lines += [_note(note) for note in job["notes"][:SHOWN]]
    rest = len(job["notes"][SHOWN:]) + job["more_notes"]
    if rest:
        lines.append(f"… and {count(rest, 'more note')}")
    return [_capital(line) for line in lines if line]


def text_of(job: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """These lines as one text that fits where it is shown."""
    text = "\n".join(lines_of(job, params))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def is_over(job: Mapping[str, Any]) -> bool:
    """Whether the job has ended; a run of it may be unknown all the same."""
    return job["state"] in JobState.final()


def _capital(line: str) -> str:
    return line[:1].upper() + line[1:]


def _instances(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted(name for each in entries for name in each["instances"])


def _unknown(job: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> str:
    names = _instances(entries)
    if not names:
        return ""
    told = f"? unknown what was done on {count(len(names), 'instance')}: {named(names)}."
    if is_over(job):
        return f"{told} Look there before you repeat anything."
    return f"{told} It is looked at again; nothing is repeated meanwhile."


def _progress(job: Mapping[str, Any]) -> str:
    runs, total = job["runs"], sum(job["runs"].values())
    waiting = runs.get("pending", 0) + runs.get("running", 0)
    if job["awaits"]:
        return f"nothing is done yet: the plan for {count(total, 'instance')} waits for {job['awaits']}"
    if is_over(job) and runs.get("cancelled") == total:
        return f"{job['state']}: nothing was done"
    if is_over(job) or not waiting:
        return ""
    return f"{job['state'].replace('_', ' ')}: {number(total - waiting)} of {count(total, 'instance')} so far"


def _not_done(state: str, entries: Sequence[Mapping[str, Any]]) -> str:
    if not entries:
        return ""
    parts = [
        named(each["instances"]) + (f" ({each['code']})" if each["code"] and each["code"] != state else "")
        for each in entries
    ]
    return f"{SIGNS[state]} {state}: " + SEPARATOR.join(parts)


def _note(note: Mapping[str, Any]) -> str:
    return f"note of {named(note['instances'], note['count'])}: {cell(note['text'])}"


def _result(job: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """The headline and what belongs to it."""
    result, name = job["result"], job["operation"]
    if not job["kept"]:
        return [f"{operation(name, params)}: {job['state'].replace('_', ' ')}; the results are kept no longer"]
    if result is None:
        done = job["runs"].get("succeeded", 0)
        return [f"{operation(name, params, is_done=True)} on {count(done, 'instance')}"] if done else []
    if name == "queue.summary":
        return _counted(result, job)
    if name in ("queue.list", "message.trace", "log.search"):
        return [_rows(name, result, job)]
    if "files_changed" in result:
        return [_drift(result, job)]
    if name in ("sender.block", "sender.unblock"):
        return _blocks(name, params, result, job)
    return _outcomes(result, job) if "outcomes" in result else _messages(name, params, result, job)


def _answered(result: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    total = sum(job["runs"].values())
    if result["instances"] == total:
        return count(total, "instance")
    return f"{number(result['instances'])} of {count(total, 'instance')}"


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
    if job["dry_run"]:
        return [f"would {operation(name, params)} on {count(runs.get('planned', 0), 'instance')}"]
    proven, total = runs.get("succeeded", 0) + runs.get("unchanged", 0), sum(runs.values())
    parts = [f"{operation(name, params, is_done=True)} on {number(proven)} of {count(total, 'instance')}"]
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
    planned, asked = result["planned"], result["asked"]
    if planned and (job["awaits"] or job["dry_run"] or not result["instances"]):
        return [_would(name, params, result, job)]
    if not result["instances"]:
        return []
    about = count(asked, "message")
    if result["done"] != asked:
        about = f"{number(result['done'])} of {about}"
    parts = [f"{operation(name, params, about, is_done=True)} on {_answered(result, job)}"]
    return [SEPARATOR.join([*parts, *(count(result[key], *forms) for key, forms in BESIDE.items() if result[key])])]


def _would(name: str, params: Mapping[str, Any], result: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    """What is planned, and nobody has told yet what came of it."""
    about = f"{count(result['planned'], 'message')} ({size(result['bytes'])})"
    verb = "would" if job["dry_run"] else "was to" if is_over(job) else "is to"
    told = f"{verb} {operation(name, params, about)}"
    largest = result["largest_share"]
    if largest is None:
        return told
    part = share(largest["planned"], largest["queue_total"])
    return f"{told}{SEPARATOR}{part} of the queue of {cell(largest['instance'])}"


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
