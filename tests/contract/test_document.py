"""What operations come to, as the API's document says it. The other cases are checked where they run (`do`)."""

from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from fleet.mta import REGISTRY
from fleet.mta.records import Ended, HostFacts, Result
from jobs.lifecycle.effects import discovered_json
from tests.contract.document import check_told
from tests.contract.test_contract import OPERATIONS, do, played, prepared, supported


@pytest.mark.parametrize(("mta", "name"), supported(OPERATIONS))
def test_a_key_that_the_document_does_not_have_is_noticed(mta: str, name: str, tmp_path: Path) -> None:
    host = played(mta, tmp_path)
    result = do(host, prepared(host, name), wiring_approved=True).value
    check_told(name, result)
    with pytest.raises(jsonschema.ValidationError):
        check_told(name, replace(result, data={**result.data, "undeclared": 1}))
    if result.after is not None:
        with pytest.raises(jsonschema.ValidationError):
            check_told(name, replace(result, after={**result.after, "undeclared": 1}))


@pytest.mark.parametrize("mta", REGISTRY)
def test_what_discovery_finds_is_told_as_the_document_has_it(mta: str, tmp_path: Path) -> None:
    facts = HostFacts(clock_skew=0.5, helpers=(("mxfleet-1", "ab12"),), login_noise="hello\n")
    told = discovered_json(facts, (played(mta, tmp_path).instance,))
    check_told("host.discover", Result(Ended.SUCCEEDED, told))
    told["host"]["undeclared"] = 1  # type: ignore[typeddict-unknown-key]  # that is the point
    with pytest.raises(jsonschema.ValidationError):
        check_told("host.discover", Result(Ended.SUCCEEDED, told))
