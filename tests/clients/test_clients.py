"""What generators make of docs/openapi.yaml has the types that an integrator needs, and works."""

import re
import shutil
from pathlib import Path

import pytest

from tests.clients import generators
from tests.clients.fleet import OTHERS, fleet
from tests.clients.generators import DOCUMENT, HERE, MODULES, PROGRAMS, run
from tests.http.cast import World

BULK = 25
PYTHON_CLIENTS = r'client\.py:\d+: error: Argument \d to "__a?exit__"|"Self"'
"""Faults of openapi-python-client itself: its template for context managers, and a property named as its model."""
MODELS = r'error: .* \(expression has type "int", variable has type "(?:str|MaxBytes .*)"\)'
"""A fault of datamodel-code-generator itself: to each kind of a value it gives the default of one of them."""
ENDLESS = "Unsupported content_type application/x-ndjson"
"""Of the audit trail's export: what has no end has no type."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A Python client's directory, and what its generator said."""
    return generators.python_client(tmp_path_factory.mktemp("python"))


def test_openapi_python_client_leaves_nothing_out_but_the_export(made: tuple[Path, str]) -> None:
    _, said = made
    warnings = [line for line in said.splitlines() if line.startswith(("WARNING", "Cannot", "ERROR"))]
    assert len(warnings) == 2, said
    assert "/api/v1/audit/export/" in warnings[0]
    assert ENDLESS in warnings[1]


def wrong_types(directory: Path, known: str, *checked: str) -> list[str]:
    """What mypy says of these files, but for what is known of the generator."""
    said = run(PROGRAMS / "mypy", "--cache-dir", directory / "cache", *checked, cwd=directory, fails=True)
    assert re.search(r"^(?:Found|Success)", said, re.M), said
    return [line for line in said.splitlines() if ": error: " in line and not re.search(known, line)]


def test_the_story_has_the_types_of_the_python_client(made: tuple[Path, str]) -> None:
    client, _ = made
    shutil.copy(HERE / "story.py", client)
    assert wrong_types(client, PYTHON_CLIENTS, "--strict", "story.py", "mxfleet_client") == []
    (client / "wrong.py").write_text((HERE / "story.py").read_text().replace('reason="newsletter loop"', "reason=1"))
    [error] = wrong_types(client, PYTHON_CLIENTS, "--strict", "wrong.py")
    assert 'Argument "reason" to "QueuePurgeRequest"' in error


@pytest.mark.django_db(transaction=True)
def test_the_main_story_goes_through_the_python_client(
    made: tuple[Path, str], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    client, _ = made
    shutil.copy(HERE / "story.py", client)
    with fleet(world, tmp_path, BULK, monkeypatch) as address:
        said = run(PROGRAMS / "python", "story.py", address, world.alice.token, world.bob.token, cwd=client)
    first, planned, purged, put_back = said.splitlines()
    assert first.startswith(f"{BULK} of {BULK + OTHERS} queued, the oldest since 2026-11-")
    assert planned == f"planned: {BULK} on mx1/postfix, AAAAAA0 first"
    assert purged == f"purged: {BULK}, 0 left; evidence: {{'absent': {BULK}}}"
    assert put_back == f"put back: {BULK}, queued again: {BULK}"


USE = """
from models import PlanInstance, QueueListRun

def first(run: QueueListRun) -> str:
    return run.result.entries[0].queue_id if run.result else ""

def counted(plan: PlanInstance) -> int:
    return plan.counts.messages
"""


def test_datamodel_code_generator_makes_models_with_types(tmp_path: Path) -> None:
    run(
        *(PROGRAMS / "datamodel-codegen", "--input", DOCUMENT, "--input-file-type", "openapi"),
        *("--output", tmp_path / "models.py", "--output-model-type", "pydantic_v2.BaseModel"),
        *("--target-python-version", "3.11", "--use-annotated", "--deserialize-default-values", "enum"),
    )
    (tmp_path / "use.py").write_text(USE)
    assert wrong_types(tmp_path, MODELS, "models.py", "use.py") == []
    (tmp_path / "use.py").write_text(USE.replace("counts.messages", "counts.nothing"))
    [error] = wrong_types(tmp_path, MODELS, "use.py")
    assert error.startswith("use.py:8: ")


def test_openapi_typescript_makes_types_that_tell_right_from_wrong(tmp_path: Path) -> None:
    run(MODULES / "openapi-typescript", DOCUMENT, "--output", tmp_path / "mxfleet.d.ts")
    shutil.copy(HERE / "story.ts", tmp_path)
    run(MODULES / "tsc", "--strict", "--noEmit", "--skipLibCheck", "false", "story.ts", cwd=tmp_path)
