"""Pauses after refusals."""

from dataclasses import replace

from fleet.mta.errors import AuthFailed, HostKeyMismatch
from fleet.ssh.breaker import HOSTS_BEFORE_CREDENTIAL, PAUSE, Breaker
from fleet.ssh.endpoint import Endpoint

MX1 = Endpoint("mx1", "192.0.2.1", 22, "ops", b"key")


def test_a_refused_host_is_paused_for_a_minute_with_the_same_error() -> None:
    breaker = Breaker()
    breaker.refused(MX1, HostKeyMismatch("other key", hint="look", shown_key="k"), 100)
    again = breaker.objection(MX1, 100 + PAUSE - 1)
    assert isinstance(again, HostKeyMismatch)
    assert again.detail == "other key (a moment ago; not tried again for 1 s)"
    assert (again.hint, again.data["shown_key"], again.data["paused_seconds"]) == ("look", "k", 1)
    assert breaker.objection(MX1, 100 + PAUSE) is None


def test_forgiving_a_working_login_and_an_edit_each_end_the_pause() -> None:
    for end in (lambda b: b.forgive("mx1"), lambda b: b.worked(MX1)):
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


def test_wrong_host_keys_say_nothing_about_the_credential() -> None:
    breaker = Breaker()
    for number in range(20):
        breaker.refused(replace(MX1, name=f"mx{number}"), HostKeyMismatch("no"), 10)
    assert breaker.objection(replace(MX1, name="fresh"), 11) is None
