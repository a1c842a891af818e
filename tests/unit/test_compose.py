"""deploy/compose.yaml: right by the schema of compose, and by what this project promises of it. No engine is needed.

compose-spec.json is schema/compose-spec.json of https://github.com/compose-spec/compose-spec (Apache License 2.0).
"""

import json
import os
import re
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deploy import settings as deployed
from deploy.env import NAMES

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy/compose.yaml"
OURS = ("prepare", "api", "worker", "control", "scheduler")
WORKERS = ("worker", "control")


def composed(**settings: str) -> dict[str, Any]:
    """The file as compose sees it, with these settings in .env."""

    def put_in(found: re.Match[str]) -> str:
        return settings.get(found["name"], found["default"])

    text = re.sub(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}", put_in, FILE.read_text())
    assert "${" not in text
    found: dict[str, Any] = yaml.safe_load(text)
    return found


SERVICES: dict[str, dict[str, Any]] = composed()["services"]


def test_it_is_right_by_the_schema_of_compose() -> None:
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    validator.validate(composed())
    broken = composed()
    broken["services"]["api"]["healthchek"] = {}
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(broken)


def test_each_copy_of_the_version_is_that_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {SERVICES[name]["image"] for name in OURS} == {f"mxfleet:{version}"}
    assert version == deployed.VERSION
    released = re.search(r"^## (\d\S*) - ", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released is not None
    assert released[1] == version


def test_images_of_others_are_pinned() -> None:
    base = re.search(r"^FROM (\S+)$", (ROOT / "deploy/Dockerfile").read_text(), re.M)
    assert base is not None
    for image in (base[1], *(SERVICES[name]["image"] for name in ("database", "redis"))):
        assert re.fullmatch(r"\w+:\d+\.\d+(\.\d+)?(-[a-z]+)+", image), image


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_service_writes_a_core_or_fills_the_disk_with_its_log(name: str) -> None:
    assert SERVICES[name]["ulimits"]["core"] == 0
    assert SERVICES[name]["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("name", ["api", *WORKERS, "database", "redis"])
def test_what_others_wait_for_or_rely_on_says_how_it_is(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("age", [0, 3600])
@pytest.mark.parametrize("name", WORKERS)
def test_the_health_of_a_worker_is_its_file(name: str, age: int, tmp_path: Path) -> None:
    file = tmp_path / "alive"
    file.touch()
    os.utime(file, (file.stat().st_mtime - age,) * 2)
    kind, script = SERVICES[name]["healthcheck"]["test"]
    named = SERVICES[name]["environment"]["MXFLEET_LIVENESS_FILE"]
    assert kind == "CMD-SHELL"
    assert named in script
    done = subprocess.run(["sh", "-c", script.replace(named, str(file))])
    assert (done.returncode == 0) is (age == 0)


def test_one_number_is_that_of_the_shards_and_of_the_workers() -> None:
    services = composed(MXFLEET_SHARDS="7")["services"]
    assert services["worker"]["deploy"]["replicas"] == "7"
    assert {str(services[name]["environment"]["MXFLEET_SHARDS"]) for name in OURS} == {"7"}
    assert services["worker"]["command"][-1] == "ssh"


@pytest.mark.parametrize("name", OURS)
def test_every_setting_reaches_every_part(name: str) -> None:
    """From .env, but for those that are the containers' own affair; these must exist."""
    service = SERVICES[name]
    assert service["env_file"] == [{"path": ".env", "required": False}]
    assert {variable.removesuffix("_FILE") for variable in service["environment"]} - {*NAMES} <= {
        "MXFLEET_KEY",
        "MXFLEET_LIVENESS",
    }


def test_only_the_migrations_know_the_owner_of_the_tables() -> None:
    secrets = {name: set(SERVICES[name]["secrets"]) for name in OURS}
    assert {name for name in OURS if "owner-url" in secrets[name]} == {"prepare"}
    assert "database-url" not in secrets["prepare"]
    for name in OURS:
        url = SERVICES[name]["environment"]["MXFLEET_DATABASE_URL_FILE"]
        assert url == ("/run/secrets/owner-url" if name == "prepare" else "/run/secrets/database-url")
        for path in (text for text in SERVICES[name]["environment"].values() if str(text).startswith("/run/secrets/")):
            assert Path(path).name in secrets[name]


def test_the_database_makes_the_roles_before_anybody_is_let_in() -> None:
    database = SERVICES["database"]
    assert "./postgres/roles.sh:/docker-entrypoint-initdb.d/roles.sh:ro" in database["volumes"]
    assert os.access(ROOT / "deploy/postgres/roles.sh", os.X_OK)
    # Until it has run its scripts the image's server listens on a unix socket only.
    assert "--host=127.0.0.1" in database["healthcheck"]["test"]
    asked = set(re.findall(r"MXFLEET_\w+_FILE", (ROOT / "deploy/postgres/roles.sh").read_text()))
    assert asked <= database["environment"].keys()


@pytest.mark.parametrize("name", OURS)
def test_every_part_starts_a_module_that_is_there(name: str) -> None:
    python, option, module, *_ = SERVICES[name]["command"]
    assert (python, option) == ("python", "-m")
    assert find_spec(module) is not None
