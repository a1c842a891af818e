"""Settings: each is checked at start, and an error says which one, what is wrong and what would be right."""

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from deploy import keys
from deploy.env import ConfigError, Env, read, runtime_directory
from deploy.values import DAY, Keep

GOOD_SECRET = "q7Lw2Zr9TnX4bVc8MkJ1hGf6DsA3pOiU5yEeRtWqNmBvCxZlKj"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    path.write_text(f"# the current one\nk2 {'B' * 43}=\nk1 {'A' * 43}=\n")
    return path


def env(tmp_path: Path, **variables: str) -> Env:
    return read({"MXFLEET_DATA": str(tmp_path), **{f"MXFLEET_{name}": value for name, value in variables.items()}})


def production(key_file: Path, **changes: str) -> dict[str, str]:
    given = {
        "MXFLEET_DATABASE_URL": "postgresql://u:p@db/mxfleet",
        "MXFLEET_SECRET_KEY": GOOD_SECRET,
        "MXFLEET_KEY_FILE": str(key_file),
        "MXFLEET_DATA": str(key_file.parent),
        **changes,
    }
    return {name: value for name, value in given.items() if value}


def test_nothing_set_is_a_complete_configuration_for_a_trial(tmp_path: Path) -> None:
    found = env(tmp_path)
    assert not found.production
    assert found.listen == ("127.0.0.1", 8000)
    assert found.database["NAME"] == str(tmp_path / "mxfleet.sqlite3")
    assert found.database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert found.is_redis_embedded
    assert found.reconcile_interval == 30
    assert (found.waiting, found.waiting_each) == (400, 100)
    assert found.shards == len(os.sched_getaffinity(0))
    assert found.allowed_networks is None
    assert [str(network) for network in found.metrics_networks] == ["127.0.0.0/8", "::1/128"]
    assert found.keep == Keep(jobs=365 * DAY, details=90 * DAY, events=7 * DAY, answers=3 * DAY)
    assert len(found.secret_key) >= 50


def test_what_sqlite_has_committed_is_on_the_disk(tmp_path: Path) -> None:
    settings = env(tmp_path).database
    with closing(sqlite3.connect(settings["NAME"])) as database:
        database.executescript(settings["OPTIONS"]["init_command"])
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: each commit of the log is synced


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENV", "prod"),
        ("LISTEN", "8000"),
        ("LISTEN", "127.0.0.1:0"),
        ("LISTEN", "127.0.0.1:65536"),
        ("LISTEN", "127.0.0.1:８０"),
        ("DATABASE_URL", "mysql://u@h/db"),
        ("DATABASE_URL", "postgresql://u@h"),
        ("DATABASE_URL", "postgresql://u@h:port/db"),
        ("DATABASE_URL", "not a url"),
        ("REDIS_URL", "valkey://h"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "redis://h:port"),
        ("REDIS_URL", "unix://" + "/long" * 30),
        ("SECRET_KEY", "short"),
        ("SECRET_KEY", "x" * 60),
        ("SECRET_KEY", "django-insecure-" + GOOD_SECRET),
        ("KEY_FILE", "/nonexistent"),
        ("SHARDS", "0"),
        ("SHARDS", "257"),
        ("SHARDS", "two"),
        ("SITE", "a.b"),
        ("SITE", "x" * 64),
        ("ALLOWED_NETWORKS", "10.0.0.1/8"),
        ("ALLOWED_NETWORKS", "mx1"),
        ("TRUSTED_PROXIES", "*"),
        ("RECONCILE_INTERVAL", "0s"),
        ("RECONCILE_INTERVAL", "2d"),
        ("RECONCILE_INTERVAL", "half a minute"),
        ("METRICS_NETWORKS", "monitor"),
        ("KEEP_JOBS", "0d"),
        ("KEEP_JOBS", "3651d"),
        ("KEEP_DETAILS", "for ever"),
        ("KEEP_EVENTS", "-1d"),
        ("KEEP_ANSWERS", "1w"),
        ("LOG", "xml"),
        ("WAITING", "0"),
        ("WAITING", "many"),
        ("WAITING_EACH", "10001"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        env(tmp_path, **{name: value})
    assert caught.value.variable == f"MXFLEET_{name}"
    assert str(caught.value).startswith(f"MXFLEET_{name}: ")
    assert "; right would be " in str(caught.value)


def test_production_starts_with_its_own_keys(key_file: Path) -> None:
    found = read(production(key_file))
    assert found.production
    assert found.key_file == key_file
    assert found.own_services == ("db",)


@pytest.mark.parametrize("missing", ["MXFLEET_SECRET_KEY", "MXFLEET_KEY_FILE"])
@pytest.mark.parametrize("why", [{}, {"MXFLEET_DATABASE_URL": "", "MXFLEET_ENV": "production"}])
def test_production_refuses_to_start_without_its_keys(key_file: Path, missing: str, why: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(production(key_file, **why, **{missing: ""}))
    assert caught.value.variable == missing
    assert not (key_file.parent / keys.SECRET_KEY).exists()


@pytest.mark.parametrize(
    "content",
    ["", "# none\n", "k1\n", "k1 !!!!\n", "k1 QUJD\n", f"k/1 {'A' * 43}=\n", f"k1 {'A' * 43}=\nk1 {'B' * 43}=\n"],
)
def test_a_key_file_that_would_lose_credentials_is_refused(key_file: Path, content: str) -> None:
    key_file.write_text(content)
    with pytest.raises(ConfigError, match="MXFLEET_KEY_FILE"):
        read(production(key_file))


def test_a_key_file_that_everybody_may_read_is_refused(key_file: Path) -> None:
    key_file.chmod(0o644)
    with pytest.raises(ConfigError, match="mode 0644"):
        read(production(key_file))


def test_a_damaged_generated_key_file_is_refused_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / keys.KEY_FILE).touch(mode=0o600)
    with pytest.raises(ConfigError, match="MXFLEET_KEY_FILE"):
        env(tmp_path)


def test_a_postgresql_url_gives_each_part_decoded(key_file: Path) -> None:
    url = "postgresql://us%40er:p%2Fw@[2001:db8::1]:5433/mx%20fleet?sslmode=require"
    found = read(production(key_file, MXFLEET_DATABASE_URL=url))
    assert found.database["USER"] == "us@er"
    assert found.database["PASSWORD"] == "p/w"
    assert (found.database["HOST"], found.database["PORT"]) == ("2001:db8::1", "5433")
    assert found.database["NAME"] == "mx fleet"
    assert found.database["OPTIONS"]["sslmode"] == "require"
    assert found.database["OPTIONS"]["server_side_binding"] is True
    assert found.database["OPTIONS"]["prepare_threshold"] == 3


def test_a_postgresql_url_may_name_a_socket_directory(key_file: Path) -> None:
    found = read(production(key_file, MXFLEET_DATABASE_URL="postgresql://mx@/mxfleet?host=/run/postgresql"))
    assert found.database["HOST"] == "/run/postgresql"
    assert found.own_services == ()


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("postgresql:///m?host=db1,db2", ("db1", "db2", "cache")),
        ("postgresql://db/m?hostaddr=192.0.2.9", ("192.0.2.9", "cache")),
        ("postgresql:///m?host=db1,db2&hostaddr=192.0.2.9,", ("192.0.2.9", "db2", "cache")),
        ("postgresql:///m?hostaddr=192.0.2.9", ("192.0.2.9", "cache")),
    ],
)
def test_our_own_servers_are_where_the_urls_lead_to(key_file: Path, url: str, own: tuple[str, ...]) -> None:
    found = read(production(key_file, MXFLEET_DATABASE_URL=url, MXFLEET_REDIS_URL="redis://cache"))
    assert found.own_services == own


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("redis://h:6380/2", "redis://h:6380/2"),
        ("rediss://:pw@h/0", "rediss://:pw@h/0"),
        ("unix:///run/r.sock", "redis+socket:///run/r.sock?virtual_host=0"),
        ("unix:///run/r.sock?db=3", "redis+socket:///run/r.sock?virtual_host=3"),
    ],
)
def test_one_redis_setting_gives_both_libraries_forms(tmp_path: Path, url: str, broker: str) -> None:
    found = env(tmp_path, REDIS_URL=url)
    assert (found.redis_url, found.broker_url) == (url, broker)
    assert not found.is_redis_embedded


def test_the_embedded_socket_fits_a_socket_address_however_long_the_data_path_is(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 200)
    assert len(str(runtime_directory(deep) / "redis.sock")) < 108
    assert runtime_directory(deep) != runtime_directory(tmp_path)


def test_an_env_file_is_overridden_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text('# settings\n\nexport MXFLEET_SHARDS=3\nMXFLEET_LISTEN="[::1]:9000"\n')
    found = env(tmp_path, ENV_FILE=str(file), SHARDS="4")
    assert (found.shards, found.listen) == (4, ("::1", 9000))


def test_a_misspelt_name_in_an_env_file_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("MXFLEET_SHARDS=3\nMXFLEET_SHARD=3\n")
    with pytest.raises(ConfigError, match="line 2: 'MXFLEET_SHARD'"):
        env(tmp_path, ENV_FILE=str(file))


def test_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(GOOD_SECRET + "\n")
    assert env(tmp_path, SECRET_KEY_FILE=str(file)).secret_key == GOOD_SECRET
    with pytest.raises(ConfigError, match="both set"):
        env(tmp_path, SECRET_KEY_FILE=str(file), SECRET_KEY=GOOD_SECRET)


def test_the_settings_printed_show_no_secret(key_file: Path) -> None:
    shown = repr(read(production(key_file, MXFLEET_REDIS_URL="redis://:hidden@h/0")))
    assert GOOD_SECRET not in shown
    assert "hidden" not in shown
    assert "PASSWORD" not in shown


def test_keys_are_made_once_even_when_many_processes_start_together(tmp_path: Path) -> None:
    data = tmp_path / "data"

    def start(_: int) -> tuple[str, str]:
        keys.prepare(data, makes_keys=True)
        return keys.secret_key(data), (data / keys.KEY_FILE).read_text()

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(start, range(64)))) == 1
    assert data.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in data.iterdir()} == {
        keys.SECRET_KEY: 0o600,
        keys.KEY_FILE: 0o600,
    }
    keys.check_key_file(data / keys.KEY_FILE)


@pytest.mark.parametrize("program", [["manage.py", "check"], ["-m", "deploy.supervise"], ["-m", "deploy.serve"]])
def test_a_program_with_a_wrong_setting_ends_with_78_and_no_traceback(tmp_path: Path, program: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *program],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "MXFLEET_DATA": str(tmp_path), "MXFLEET_SECRET_KEY": "changeme"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 78
    assert done.stderr.startswith("mxfleet: configuration: MXFLEET_SECRET_KEY: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_access_log_is_on_unless_switched_off(tmp_path: Path) -> None:
    assert read({"MXFLEET_DATA": str(tmp_path)}).has_access_log
    assert not read({"MXFLEET_DATA": str(tmp_path), "MXFLEET_ACCESS_LOG": "off"}).has_access_log


def test_the_example_names_every_variable() -> None:
    text = (ROOT / "deploy" / "env.example").read_text()
    from deploy.env import NAMES

    assert {name for name in NAMES if f"\n#{name}=" not in text} == set()


def test_what_belongs_to_a_job_is_kept_no_longer_than_the_job(tmp_path: Path) -> None:
    found = env(tmp_path, KEEP_JOBS="2d", KEEP_EVENTS="36h", METRICS_NETWORKS="10.0.0.0/8")
    assert found.keep == Keep(jobs=2 * DAY, details=2 * DAY, events=DAY * 3 // 2, answers=3 * DAY)
    assert [str(network) for network in found.metrics_networks] == ["10.0.0.0/8"]
