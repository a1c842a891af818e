"""What a job came to, in a few lines for a chat or a ticket."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs.words.amounts import SHOWN, cell, count, named, number
from jobs.words.results import SEPARATOR, headline, is_over, is_untouched, places

LONGEST = 3000
"""Characters of a whole: a section of Slack takes no more."""
NOTE = 300
"""Characters of a note: most of them are ours, and half of one would mislead."""
SIGNS = {"unknown": "?", "failed": "✗", "unreachable": "✗", "unsupported": "–", "cancelled": "–"}


def lines_of(job: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """What a job came to, as a chat or a ticket shows it. `job`: as `jobs/{id}/summary/` has it."""
    bad = {state: [each for each in job["not_done"] if each["state"] == state] for state in SIGNS}
    lines = [_unknown(job, bad.pop("unknown")), _progress(job), *headline(job, params)]
    lines += [_not_done(state, entries) for state, entries in bad.items()]
    lines += [each["hint"] for each in job["not_done"] if each["state"] == "pending"]
    lines += [_note(note) for note in job["notes"][:SHOWN]]
    rest = len(job["notes"][SHOWN:]) + job["more_notes"]
    if rest:
        lines.append(f"… and {count(rest, 'more note')}")
    return [_capital(line) for line in lines if line]


def text_of(job: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """These lines as one text that fits where it is shown."""
    text = "\n".join(lines_of(job, params))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _capital(line: str) -> str:
    return line[:1].upper() + line[1:]


def _instances(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted(name for each in entries for name in each["instances"])


def _unknown(job: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> str:
    names = _instances(entries)
    if not names:
        return ""
    told = f"? unknown what was done on {places(job, len(names))}: {named(names)}."
    if is_over(job):
        return f"{told} Look there before you repeat anything."
    return f"{told} It is looked at again; nothing is repeated meanwhile."


def _progress(job: Mapping[str, Any]) -> str:
    runs, total = job["runs"], sum(job["runs"].values())
    waiting = runs.get("pending", 0) + runs.get("running", 0)
    if job["awaits"]:
        return f"nothing is done yet: the plan for {places(job, total)} waits for {job['awaits']}"
    if is_over(job) and runs.get("cancelled") and is_untouched(job):
        return f"{job['state']}: nothing was done"
    if is_over(job) or not waiting:
        return ""
    return f"{job['state'].replace('_', ' ')}: {number(total - waiting)} of {places(job, total)} so far"


def _not_done(state: str, entries: Sequence[Mapping[str, Any]]) -> str:
    if not entries:
        return ""
    parts = [
        named(each["instances"]) + (f" ({each['code']})" if each["code"] and each["code"] != state else "")
        for each in entries
    ]
    return f"{SIGNS[state]} {state}: " + SEPARATOR.join(parts)


def _note(note: Mapping[str, Any]) -> str:
    return f"note of {named(note['instances'], note['count'])}: {cell(note['text'], NOTE)}"
