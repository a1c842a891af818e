"""Pauses after refusals."""

from dataclasses import replace

from fleet.mta.errors import AuthFailed, HostKeyMismatch, Unreachable
from fleet.ssh.breaker import HOSTS_BEFORE_CREDENTIAL, PAUSE, SILENT_PAUSE, SUSPECT, Breaker
from fleet.ssh.endpoint import Endpoint
from fleet.ssh.login import CONNECT_TIMEOUT
from fleet.ssh.pool import PAUSES, PROBE_WAIT

MX1 = Endpoint("mx1", "192.0.2.1", 22, "ops", b"key")


def test_a_refused_host_is_paused_for_a_minute_with_the_same_error() -> None:
    breaker = Breaker()
    breaker.refused(MX1, HostKeyMismatch("other key", hint="look", shown_key="k"), 100)
    again = breaker.objection(MX1, 100 + PAUSE - 1)
    assert isinstance(again, HostKeyMismatch)
    assert again.detail == "other key (a moment ago; not tried again for 1 s)"
    assert (again.hint, again.data["shown_key"], again.data["paused_seconds"]) == ("look", "k", 1)
    assert breaker.objection(MX1, 100 + PAUSE) is None


def test_a_reset_a_working_login_and_an_edit_each_end_the_pause() -> None:
    for end in (lambda b: b.reset("mx1"), lambda b: b.worked(MX1)):
        breaker = Breaker()
        breaker.refused(MX1, AuthFailed("no"), 0)
        assert breaker.objection(replace(MX1, username="root"), 1) is None
        assert breaker.objection(MX1, 1) is not None
        end(breaker)
        assert breaker.objection(MX1, 1) is None


def test_a_credential_is_paused_everywhere_once_five_hosts_refused_it() -> None:
    breaker = Breaker()
    for number in range(HOSTS_BEFORE_CREDENTIAL):
        fresh = replace(MX1, name="fresh")
        assert breaker.objection(fresh, 10) is None
        breaker.refused(replace(MX1, name=f"mx{number}"), AuthFailed("no"), 10)
    assert isinstance(breaker.objection(fresh, 11), AuthFailed)
    assert breaker.objection(replace(fresh, private_key=b"other"), 11) is None
    assert breaker.objection(fresh, 10 + PAUSE) is None


def test_the_same_host_refusing_often_does_not_pause_the_credential() -> None:
    breaker = Breaker()
    for _ in range(20):
        breaker.refused(MX1, AuthFailed("no"), 10)
    assert breaker.objection(replace(MX1, name="mx2"), 11) is None


def test_a_host_that_hung_is_paused_and_then_suspect_until_it_answers() -> None:
    breaker = Breaker()
    assert breaker.suspicion(MX1, 0) is None
    breaker.silent(MX1, Unreachable("no answer in time", silent=True), 100)
    again = breaker.objection(MX1, 101)
    assert isinstance(again, Unreachable)
    assert again.detail == f"no answer in time (a moment ago; not tried again for {SILENT_PAUSE - 1:.0f} s)"
    assert breaker.objection(MX1, 100 + SILENT_PAUSE) is None
    assert breaker.suspicion(MX1, 100 + SILENT_PAUSE) is not None
    assert breaker.suspicion(MX1, 100 + SILENT_PAUSE + SUSPECT) is None
    breaker.answered(MX1)
    assert breaker.suspicion(MX1, 100 + SILENT_PAUSE) is None


def test_a_reset_and_a_working_login_end_the_pause_of_a_host_that_hung() -> None:
    for end in (lambda b: b.reset("mx1"), lambda b: b.worked(MX1)):
        breaker = Breaker()
        breaker.silent(MX1, Unreachable("no answer"), 0)
        assert breaker.objection(replace(MX1, name="mx2"), 1) is None
        assert breaker.objection(MX1, 1) is not None
        end(breaker)
        assert (breaker.objection(MX1, 1), breaker.suspicion(MX1, 1)) == (None, None)


def test_a_host_whose_cable_was_out_for_a_moment_is_not_paused_for_it() -> None:
    """Its login is tried for longer than that, and what comes after is over within half a minute."""
    assert 2 * CONNECT_TIMEOUT + PAUSES[0] > 30
    assert SILENT_PAUSE + PROBE_WAIT < 30


def test_wrong_host_keys_say_nothing_about_the_credential() -> None:
    breaker = Breaker()
    for number in range(20):
        breaker.refused(replace(MX1, name=f"mx{number}"), HostKeyMismatch("no"), 10)
    assert breaker.objection(replace(MX1, name="fresh"), 11) is None
