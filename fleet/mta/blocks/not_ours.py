"""An unblock that finds nothing of ours on the host: there is nothing to do, and a note says why."""

from collections.abc import Sequence

from fleet.mta.blocks.listfile import fold
from fleet.mta.blocks.proof import ProbeResult
from fleet.mta.blocks.site import ListState
from fleet.mta.errors import Unsupported
from fleet.mta.records import Ended, Result
from fleet.mta.steps import Plan, Steps


def foreign_notes(place: ListState) -> tuple[str, ...]:
    """The administrator's lines that decide about the pattern's keys; an unblock leaves them as they are."""
    wanted = {fold(key) for key in place.keys}
    return tuple(
        f"{place.source.path} line {entry.line} is the administrator's, not ours, and stays: {entry.text!r}"
        for entry in place.file.others
        if entry.key in wanted
    )


def nothing_of_ours(pattern: str, note: str) -> Steps[Result]:
    """Where a block of the pattern is impossible, so that none of ours can be there."""
    yield Plan(notes=(note,))
    return Result(Ended.UNCHANGED, data={"pattern": pattern, "notes": [note]})


def unreadable(pattern: str, error: Unsupported, looks: Sequence[ProbeResult]) -> Steps[Result]:
    """Where the list is none that we edit now. What was ours may still stand in it, so the MTA must say otherwise.

    Raises the error when the MTA did not accept the sender on every port that was asked.
    """
    if not looks or not all(result.is_accepted for result in looks):
        raise error
    return (yield from nothing_of_ours(pattern, error.detail))
