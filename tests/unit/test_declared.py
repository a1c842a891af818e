"""An adapter has the operations of the parts that its MTA declares, and no others."""

from dataclasses import replace
from typing import Any

import pytest

from fleet.mta.adapter import method_for
from fleet.mta.declared import DeclaredAdapter
from fleet.mta.exim import Exim
from fleet.mta.params.catalogue import CATALOGUE
from fleet.mta.postfix import Postfix, blocks
from fleet.mta.queue.outcome import Verb


def names(adapter: type[DeclaredAdapter]) -> set[str]:
    return {name for name in CATALOGUE if method_for(adapter(), name)}


def with_parts(**changes: Any) -> type[DeclaredAdapter]:
    parts = replace(Exim.parts, **changes)
    return type("Other", (DeclaredAdapter,), {"mta": "other", "emulated": {}, "notes": {}, "parts": parts})


@pytest.mark.parametrize(
    ("part", "operations"),
    [
        ("delivery", {"message.deliver"}),
        ("sites", {"block.list", "sender.block", "sender.unblock"}),
        ("log", {"log.search", "message.trace"}),
        ("find_routes", {"address.test", "smtp.probe"}),
    ],
)
def test_without_a_part_its_operations_and_no_others_are_absent(part: str, operations: set[str]) -> None:
    assert names(Exim) - names(with_parts(**{part: None})) == operations


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        (Verb.HOLD, "queue.hold"),
        (Verb.RELEASE, "queue.release"),
        (Verb.TAKE_OUT, "queue.purge"),
        (Verb.ATTEMPT, "queue.flush"),
        (Verb.BOUNCE, "queue.bounce"),
        (Verb.PUT_BACK, "quarantine.restore"),
        (Verb.ERASE, "quarantine.erase"),
    ],
)
def test_what_a_driver_cannot_do_is_absent(verb: Verb, name: str) -> None:
    driver = replace(Exim.parts.driver, verbs=Exim.parts.driver.verbs - {verb})
    assert names(Exim) - names(with_parts(driver=driver)) == {name}


def test_contents_that_cannot_be_read_are_not_shown() -> None:
    driver = replace(Exim.parts.driver, queue=replace(Exim.parts.driver.queue, content=None))
    assert names(Exim) - names(with_parts(driver=driver)) == {"message.show"}


def test_an_operation_that_an_mta_defines_itself_is_not_built() -> None:
    assert Postfix.block_list is blocks.block_list  # type: ignore[attr-defined]
