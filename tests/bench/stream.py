"""One queue of 1,000,000 messages through the sink and the matcher: speed per CPU second, and memory."""

import json
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.farm import Farm, line
from tests.bench.measure import table, verdict
from tests.bench.settings import alone

MESSAGES = 1_000_000
MADE = 10_000
BLOCK = 32_768
"""Bytes handed over at once, as an SSH channel does."""
MATCHES = ("from:news-1@*", "ALL", "reason:*timed*", "from=/^news-[12]@/ AND age>1h")


def run(farm: Farm) -> str:
    """Measure each match in a process of its own, so that one's memory is not another's, and tell in Markdown."""
    rows = []
    for match in MATCHES:
        argv = [sys.executable, "-m", "tests.bench.stream", match]
        found = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
        speed, grown = found["bytes"] / 1e6 / found["cpu"], found["grown"]
        fast, small = verdict(speed, 300, at_least=True), verdict(grown, 30, at_least=False)
        row = [f"`{match}`", found["matched"], f"{found['cpu']:.2f}", f"{speed:.0f}", fast, f"{grown:.1f}", small]
        rows.append([str(cell) for cell in row])
    headings = ("1,000,000 messages", "matched", "CPU s", "MB per CPU s", "", "memory grew by MB", "")
    return table(headings, rows)


def blocks(count: int) -> Iterator[bytes]:
    """The listing of `count` messages, ten thousand lines over and over, each time with other queue IDs."""
    text = "".join(line(number) for number in range(MADE)).encode()
    for turn in range(count // MADE):
        turned = text.replace(b'"queue_id": "3F5D', b'"queue_id": "%04X' % (turn + 0x3F5D))
        for start in range(0, len(turned), BLOCK):
            yield turned[start : start + BLOCK]


def judge(match: str, count: int) -> dict[str, Any]:
    """Drive `queue.list` through a listing of `count` messages. `cpu`: seconds of the feeding alone."""
    from fleet.mta.params.parse import parse_params
    from fleet.mta.postfix import Postfix
    from fleet.mta.records import Context, InstanceFacts
    from fleet.mta.steps import Completed

    facts = {"command_directory": "/usr/sbin"}
    instance = InstanceFacts("mx1", "postfix", "postfix", "3.7.11", "/etc/postfix", ("/var/spool/postfix",), (), facts)
    operation: Any = parse_params("queue.list", {"match": match}, now=datetime.now(UTC)).operation
    steps = Postfix.queue_list(instance, operation, Context(now=1_795_180_000.0))
    command: Any = next(steps)
    size, cpu = 0, 0.0
    before = forget_peak()
    for block in blocks(count):
        size += len(block)
        cpu -= time.process_time()
        command.sink.feed(block)
        cpu += time.process_time()
    data = ended(steps, Completed(0, result=command.sink.close())).data
    grown = (kilobytes("VmHWM") - before) / 1024
    return {"bytes": size, "cpu": cpu, "grown": grown, "matched": data["matched"], "total": data["total"]}


def forget_peak() -> int:
    """Begin to measure the peak of this process's memory anew (proc(5), clear_refs); what it holds now, in kB.

    ru_maxrss would not do: a new process inherits its parent's.
    """
    Path("/proc/self/clear_refs").write_text("5")
    return kilobytes("VmRSS")


def kilobytes(name: str) -> int:
    """A line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def ended(steps: Generator[Any, Any, Any], answer: Any) -> Any:
    """What the steps return once they have their last answer."""
    try:
        steps.send(answer)
    except StopIteration as end:
        return end.value
    raise SystemExit("the steps want another command")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(judge(sys.argv[1], MESSAGES)))
    else:
        alone(run)
