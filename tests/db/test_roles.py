"""The service's own role in PostgreSQL, made as the containers make it: it works, and cannot touch what is recorded."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.db import connection
from psycopg.errors import InsufficientPrivilege

from deploy.grants import APP_ROLE
from jobs.triggers import APPEND_ONLY, triggers
from tests.services import Postgres, postgres_program

pytestmark = [
    pytest.mark.skipif(connection.vendor != "postgresql", reason="roles are PostgreSQL's"),
    pytest.mark.timeout(300),
]
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy/postgres/roles.sh"


class Roles:
    """A cluster whose superuser is postgres, as in PostgreSQL's image, with our roles and the migrated database."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.cluster = Postgres(superuser="postgres")
        self.cluster.start()
        for _ in "ab":  # a second time, as after a change of a password
            self.make_roles()
        self.run_as("mxfleet", "-m", "deploy.prepare")

    def make_roles(self) -> None:
        files = {}
        for role in ("OWNER", "APP"):
            path = self.scratch / role
            path.write_text(f'it\'s "{role}" `id` $(id) \\ :x\n')
            files[f"MXFLEET_{role}_PASSWORD_FILE"] = str(path)
        place = {"PGHOST": str(self.cluster.directory), "PATH": self.path}
        done = subprocess.run([SCRIPT], env=os.environ | files | place, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")

    @property
    def path(self) -> str:
        return f"{Path(postgres_program('psql')).parent}:{os.environ['PATH']}"

    def url(self, role: str) -> str:
        return f"postgresql://{role}@/mxfleet?host={self.cluster.directory}"

    def run_as(self, role: str, *arguments: str) -> None:
        """A program of the service, with that role."""
        environment = os.environ | {
            "MXFLEET_DATABASE_URL": self.url(role),
            "MXFLEET_DATA": str(self.scratch / "data"),
            "DJANGO_SETTINGS_MODULE": "deploy.settings",
        }
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def connect(self, role: str) -> psycopg.Connection:
        return psycopg.connect(self.url(role), autocommit=True)


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roles]:
    made = Roles(tmp_path_factory.mktemp("roles"))
    yield made
    made.cluster.stop()


def is_denied(session: psycopg.Connection, statement: str) -> bool:
    """Whether the role lacks the right; a trigger's refusal is none, since it comes after."""
    try:
        session.execute(statement)
    except InsufficientPrivilege:
        return True
    except psycopg.Error:
        return False
    return False


def attacks() -> list[str]:
    """What would end the protection of what is recorded, and what would prepare that."""
    found = [
        "SET session_replication_role = replica",
        "SET ROLE mxfleet",
        f"ALTER ROLE {APP_ROLE} SUPERUSER",
        "CREATE TABLE other ()",
        "CREATE TEMPORARY TABLE jobs_job (id int)",
        "CREATE SCHEMA other",
        "CREATE FUNCTION other() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "INSERT INTO django_migrations (app, name, applied) VALUES ('jobs', '9999_x', now())",
        "DELETE FROM django_migrations",
        "ALTER TABLE jobs_job ADD COLUMN other int",
        "DROP TABLE jobs_job",
        "TRUNCATE jobs_job CASCADE",
    ]
    for table in APPEND_ONLY:
        found += [
            f"UPDATE {table} SET id = id",
            f"DELETE FROM {table}",
            f"TRUNCATE {table} CASCADE",
            f"SELECT * FROM {table} FOR UPDATE",
            f"ALTER TABLE {table} DISABLE TRIGGER ALL",
            f"ALTER TABLE {table} RENAME TO other",
        ]
    for trigger in triggers("postgresql"):
        found += [
            f"DROP TRIGGER {trigger.name} ON {trigger.table}",
            f"DROP FUNCTION {trigger.name}() CASCADE",
            f"CREATE OR REPLACE FUNCTION {trigger.name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        ]
    return found


def test_the_services_role_can_neither_alter_what_is_recorded_nor_end_its_protection(roles: Roles) -> None:
    with roles.connect(APP_ROLE) as session:
        assert [attack for attack in attacks() if not is_denied(session, attack)] == []


def test_the_owner_is_no_superuser_and_nobody_else_may_connect(roles: Roles) -> None:
    with roles.connect("postgres") as session:
        flags = session.execute(
            "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolpassword IS NOT NULL FROM pg_authid "
            "WHERE rolname LIKE 'mxfleet%' ORDER BY rolname"
        ).fetchall()
        assert flags == [("mxfleet", False, False, False, True), (APP_ROLE, False, False, False, True)]
        session.execute("CREATE ROLE stranger LOGIN")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        roles.connect("stranger")


def test_the_service_works_with_its_own_role_and_starts_when_there_is_nothing_to_migrate(roles: Roles) -> None:
    roles.run_as(APP_ROLE, "-m", "deploy.prepare")
    roles.run_as(APP_ROLE, "-m", "tests.db.role_at_work")
    with roles.connect(APP_ROLE) as session:
        assert session.execute("SELECT count(*) FROM jobs_auditcheckpoint").fetchone() != (0,)


def test_what_is_not_recorded_may_be_changed_in_every_table(roles: Roles) -> None:
    """A table that a later migration brings is granted with the others, or is one of those that are only added to."""
    right = (
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace "
        "AND has_table_privilege(%s, oid, %s) = %s"
    )
    kept = {"django_migrations", *APPEND_ONLY}
    with roles.connect(APP_ROLE) as session:

        def tables(act: str, may: bool) -> set[str]:
            return {row[0] for row in session.execute(right, [APP_ROLE, act, may])}

        assert tables("SELECT", False) == set()
        assert tables("INSERT", False) == {"django_migrations"}
        assert tables("UPDATE", False) == tables("DELETE", False) == kept
        assert tables("TRUNCATE", True) == tables("TRIGGER", True) == set()
