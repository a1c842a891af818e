"""Both commands on a bare Debian: they install what they use. One after the other, as somebody would who tries it."""

import os
import socket
from collections.abc import Iterator

import pytest

from tests.bare.debian import CHROOT, Bare

SUITES = os.environ.get("MXFLEET_BARE_SUITES", "bookworm").split()
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

START = """
export MXFLEET_LISTEN=127.0.0.1:{port}
deploy/run > log 2>&1 &
until grep -q 'ready at' log; do kill -0 $! || {{ cat log; exit 1; }}; sleep 0.2; done
python3 -c 'import urllib.request; print(urllib.request.urlopen("http://'$MXFLEET_LISTEN'/healthz").status)' || cat log
kill -TERM $!
wait $!
"""


@pytest.fixture(scope="module", params=SUITES)
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    made = Bare(request.param, tmp_path_factory.mktemp("bare"))
    yield made
    made.remove()


def test_one_command_starts_the_service_and_ends_as_it_is_told(bare: Bare) -> None:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    done = bare.run(START.format(port=port))
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["200"]), done.stdout


def test_the_demo_refuses_a_plain_chroot_and_changes_nothing_outside(bare: Bare) -> None:
    done = bare.run("deploy/run demo", CHROOT)
    assert done.returncode == 69, done.stdout
    assert "plain chroot" in done.stdout


def test_one_command_runs_tests_with_every_program_that_they_use(bare: Bare) -> None:
    """A few, chosen by what they run: compressors, sudo behind sshd, PostgreSQL and Redis, scripts of the product."""
    done = bare.run("tests/run fast -q -k 'rotated_and_compressed or sudo_runs or servers_end or fence'")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert " failed" not in done.stdout
    assert "skipped" not in done.stdout
