"""How long the benchmarks take, and how one of them runs alone."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from tests.bench.farm import Farm, farm

ROUNDS = int(os.environ.get("MXFLEET_BENCH_ROUNDS", "7"))


def alone(*benchmarks: Callable[[Farm], str]) -> None:
    """Run them on one farm and print what they tell. SIGTERM ends all that was started, as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    with farm() as made:
        for benchmark in benchmarks:
            print(benchmark(made), end="\n\n", flush=True)
