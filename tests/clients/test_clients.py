"""What generators make of docs/openapi.yaml has the types that an integrator needs, and works."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.clients import generators
from tests.clients.fleet import OTHERS, fleet
from tests.clients.generators import DOCUMENT, HERE, MODULES, PROGRAMS, run
from tests.http.cast import World

BULK = 25
PYTHON_CLIENTS = r'client\.py:\d+: error: Argument \d to "__a?exit__"|"Self"'
"""Faults of openapi-python-client itself: its template for context managers, and a property named as its model."""
MODELS = r'error: .* \(expression has type "int", variable has type "(?:str|\w*MaxBytes .*)"\)'
"""A fault of datamodel-code-generator itself: to each kind of a value it gives the default of one of them."""
OTHER_FILE = "Unsupported content type application/x-ndjson"
"""Of the two kinds of files of hosts the client takes one."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A Python client's directory, and what its generator said."""
    return generators.python_client(tmp_path_factory.mktemp("python"))


def test_openapi_python_client_leaves_nothing_out_but_the_import_of_json_lines(made: tuple[Path, str]) -> None:
    client, said = made
    warnings = re.findall(r"^(?:WARNING|Cannot|ERROR|Unsupported).*", said, re.M)
    assert warnings == ["WARNING parsing POST /api/v1/hosts/import/ within fleet.", OTHER_FILE], said
    modules = {path.stem for path in (client / "mxfleet_client/api").glob("*/*.py")}
    document = yaml.load(DOCUMENT.read_text(), yaml.CSafeLoader)
    assert {each["operationId"] for path in document["paths"].values() for each in path.values()} <= modules


def wrong_types(directory: Path, known: str, *checked: str) -> list[str]:
    """What mypy says of these files, but for what is known of the generator."""
    said = run(PROGRAMS / "mypy", "--cache-dir", directory / "cache", *checked, cwd=directory, fails=True)
    assert re.search(r"^(?:Found|Success)", said, re.M), said
    return [line for line in said.splitlines() if ": error: " in line and not re.search(known, line)]


def test_the_story_has_the_types_of_the_python_client(made: tuple[Path, str]) -> None:
    client, _ = made
    shutil.copy(HERE / "story.py", client)
    (client / "wrong.py").write_text((HERE / "story.py").read_text().replace('reason="newsletter loop"', "reason=1"))
    [error] = wrong_types(client, PYTHON_CLIENTS, "--strict", "story.py", "wrong.py", "mxfleet_client")
    assert re.match(r'wrong\.py:\d+: error: Argument "reason" to "QueuePurgeRequest"', error)


@pytest.mark.django_db(transaction=True)
def test_the_main_story_goes_through_the_python_client(
    made: tuple[Path, str], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    client, _ = made
    shutil.copy(HERE / "story.py", client)
    tokens = [who.token for who in (world.alice, world.bob, world.anna)]
    with fleet(world, tmp_path, BULK, monkeypatch) as address:
        said = run(PROGRAMS / "python", "story.py", address, *tokens, cwd=client)
    first, compared, planned, purged, put_back, added = said.splitlines()
    assert first.startswith(f"{BULK} of {BULK + OTHERS} queued, the oldest since 2026-11-")
    assert compared == f"compared with the plan of {BULK}: 0 gone, 0 new"
    assert planned == f"planned: {BULK} on mx1/postfix, AAAAAA0 first"
    assert purged == f"purged: {BULK}, 0 left; evidence: {{'absent': {BULK}}}"
    assert put_back == f"put back: {BULK}, queued again: {BULK}"
    assert added == "would add: mx9"


USE = """
from models import PlanInstance, QueueListRun

def first(run: QueueListRun) -> str:
    return run.result.entries[0].queue_id if run.result else ""

def counted(plan: PlanInstance) -> int:
    return plan.counts.messages
"""


def test_datamodel_code_generator_makes_models_with_types(tmp_path: Path) -> None:
    said = run(
        *(PROGRAMS / "datamodel-codegen", "--input", DOCUMENT, "--input-file-type", "openapi"),
        *("--output", tmp_path / "models.py", "--output-model-type", "pydantic_v2.BaseModel"),
        *("--target-python-version", "3.11", "--use-annotated", "--deserialize-default-values", "enum"),
        *("--naming-strategy", "parent-prefixed", "--formatters", "builtin"),
    )
    assert "Warning" not in said, said
    (tmp_path / "use.py").write_text(USE)
    (tmp_path / "wrong.py").write_text(USE.replace("counts.messages", "counts.nothing"))
    [error] = wrong_types(tmp_path, MODELS, "models.py", "use.py", "wrong.py")
    assert error.startswith("wrong.py:8: ")


def test_openapi_typescript_makes_types_that_tell_right_from_wrong(tmp_path: Path) -> None:
    said = run(MODULES / "openapi-typescript", DOCUMENT, "--output", tmp_path / "mxfleet.d.ts")
    assert "⚠" not in said, said
    shutil.copy(HERE / "story.ts", tmp_path)
    run(MODULES / "tsc", "--strict", "--noEmit", "--skipLibCheck", "false", "story.ts", cwd=tmp_path)
