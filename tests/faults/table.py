"""What was tried how often with which result, gathered while the tests run and printed as Markdown at their end."""

from collections import Counter
from collections.abc import Iterable, Sequence

from tests.faults.rounds import Round

ROUNDS: list[Round] = []
OTHERS: list[tuple[str, int, str, str]] = []
"""What was tried, how often, what was measured, what was broken."""


def note(tried: str, times: int, measured: str, broken: str = "") -> None:
    OTHERS.append((tried, times, measured, broken or "nothing"))


def markdown() -> str:
    """Both tables; empty when nothing was tried."""
    parts = []
    if ROUNDS:
        head = ("fault", "purges", "hit", "ended as", "messages", "promises broken")
        parts.append(_table(head, [_row(kind) for kind in dict.fromkeys(each.kind for each in ROUNDS)]))
    if OTHERS:
        parts.append(_table(("tried", "times", "measured", "promises broken"), OTHERS))
    return "\n\n".join(parts)


def _row(kind: str) -> tuple[object, ...]:
    mine = [each for each in ROUNDS if each.kind == kind]
    ends = Counter(each.outcome for each in mine)
    broken = Counter(problem.partition(":")[0] for each in mine for problem in each.problems)
    return (
        kind,
        len(mine),
        sum(each.was_hit for each in mine),
        _counted(ends),
        sum(len(each.before) for each in mine),
        _counted(broken) or "none",
    )


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
