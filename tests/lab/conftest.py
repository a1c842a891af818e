"""The lab's fixtures, and the groups in which its tests are spread over lanes."""

from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.lab import lanes
from tests.lab.fixtures import *  # noqa: F403 - pytest finds fixtures by name in this module
from tests.lab.hosts import ALL
from tests.lab.service import *  # noqa: F403 - likewise
from tests.lab.waiting import PATIENCE

LIMIT = 120
"""Seconds for a test that names no other limit, with its fixtures, on an idle machine."""


class LaneScheduling(LoadScopeScheduling):
    """One group after the other, as they come, to the lane that is free. Not by marks: those need an older pytest."""

    def _split_scope(self, nodeid: str) -> str:
        return lanes.group_of(nodeid, ALL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LaneScheduling:
    config.option.loadscopereorder = False  # the order is ours
    return LaneScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The lab's tests last, and of these the long modules first; `items` are those of the whole run."""
    here = Path(__file__).parent
    items.sort(key=lambda item: lanes.rank(item.path.stem) if here in item.path.parents else -1)
    for item in items:
        if here in item.path.parents:
            given = item.get_closest_marker("timeout")
            item.add_marker(pytest.mark.timeout((given.args[0] if given else LIMIT) * PATIENCE), append=False)
