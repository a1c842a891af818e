"""Lanes: the lab's tests side by side, a small lab of its own for each process that runs them.

`pytest -n 5 tests/lab` starts five processes, more than there are processors, because a test mostly waits for a mail
server. Each process is a lane: it has its own network, sink, hosts and, if it needs one, running product. Lanes share
nothing but the images and keys in the cache, and a test knows nothing of lanes. A lane starts a host when a test first
asks for it, and takes its lab down at the end.

What stays together and in its order is a group (`group_of`); a lane that is free takes the next. Standard library only:
config.py imports this.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection
from pathlib import Path, PurePath

FIRST = (
    "test_failures",
    "test_story",
    "test_other_mtas_story",
    "test_postfix_blocks",
    "test_listeners",
    "test_cuts",
)
"""The modules whose groups take longest, longest first: the last to begin decide when all is done."""
LONG = ("test_failures", "test_story")
"""Modules that use the product for so long that each is a group. The others that do are one group together, as long,
so that it starts in three lanes: a start takes as much of the processors as forty resets of a host."""
PRODUCT = "product"
SPACING = 16
"""Between the third numbers of two lanes' networks: 10.77.0, 10.77.16, 10.77.32; others may use those next to ours."""


def lane() -> int:
    """This process's lane: 1 and so on for the processes of pytest-xdist, which calls them gw0 and so on; else 0.

    `MXFLEET_LAB_LANE` is for the lab's commands, to look into the lane of a test that hangs.
    """
    given = os.environ.get("MXFLEET_LAB_LANE")
    return int(given) if given else int(os.environ.get("PYTEST_XDIST_WORKER", "gw-1").removeprefix("gw")) + 1


def network_of(prefix: str, number: int) -> str:
    """The first three numbers of a lane's /24."""
    first, second, third = prefix.split(".")
    return f"{first}.{second}.{(int(third) + SPACING * number) % 256}"


def name_of(name: str, number: int) -> str:
    """An interface's or a directory's name in a lane."""
    return f"{name}-{number}" if number else name


def group_of(test: str, hosts: Collection[str]) -> str:
    """The group of a test: its module, divided by the host that its parameters name; PRODUCT or one of LONG if it uses
    the product.

    `test` is pytest's name for it, "tests/lab/test_x.py::test_y[pf1-more]"; `hosts` are the lab's. Elsewhere than in
    tests/lab a module is a group.
    """
    path, _, rest = test.partition("::")
    if PurePath(path).parent.name != "lab":
        return path
    module = PurePath(path).stem
    if uses_product(module):
        return module if module in LONG else PRODUCT
    words = rest.partition("[")[2].rstrip("]").replace("/", "-").split("-")
    return "-".join([module, *sorted({*words} & {*hosts})])


@functools.cache
def uses_product(module: str) -> bool:
    """Whether a module's tests use the running product, which a lane starts once: they build on each other.

    Told from its text, because who hands out the groups has imported no test.
    """
    text = (Path(__file__).parent / f"{module}.py").read_text()
    return re.search(r"\b(people: People|service: Service)\b", text) is not None


def rank(module: str) -> int:
    """Where a module's groups stand in the queue: those of FIRST, then the others in pytest's order."""
    return FIRST.index(module) if module in FIRST else len(FIRST)
