"""The table of operations in the documentation is what the adapters say."""

from pathlib import Path

from fleet.mta import REGISTRY
from fleet.mta.params.catalogue import CATALOGUE, OF_HOSTS
from fleet.mta.table import render

PAGE = Path(__file__).parents[2] / "docs" / "operations-by-mta.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == render(), "run: python -m fleet.mta.table >docs/operations-by-mta.md"


def test_every_operation_and_every_mta_is_in_it() -> None:
    rows = [line for line in render().splitlines() if line.startswith("| `")]
    named = {line.split("`")[1] for line in rows}
    assert set(CATALOGUE) - OF_HOSTS <= named
    assert all(line.count("|") == len(REGISTRY) + 2 for line in rows)
