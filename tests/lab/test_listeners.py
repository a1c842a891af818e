"""A block on a real Postfix that takes mail in several ways, and an unblock whose sender is still refused."""

from collections.abc import Iterator

import pytest

from fleet.mta.errors import Conflict
from fleet.mta.operations import SenderBlock
from fleet.mta.postfix import Postfix
from fleet.mta.records import Ended
from tests.lab.blocking import SENDER, BlockedHost
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

SECOND = "192.0.2.77"
MAP = "/etc/postfix/senders"
OWN_RULES = "permit_mynetworks,reject_non_fqdn_sender"
KEEP = "[ -d /root/kept ] || cp -a /etc/postfix /root/kept; ip addr replace 192.0.2.77/32 dev lo"
RESTORE = "rm -rf /etc/postfix && cp -a /root/kept /etc/postfix"
AGED = "touch -d '1 minute ago' /etc/postfix/main.cf /etc/postfix/master.cf"
# master(8) binds what is new before it lets go of what was, so a reload cannot take an address out of 0.0.0.0.
LISTENS = "until ss -Hltn 'sport = :25' | grep -q .; do sleep 0.1; done"
RESTART = f"postfix abort 2>&1; {AGED}; postfix start 2>&1; {LISTENS}"


class Several(BlockedHost):
    """`set_up`: the services of master.cf on the network, and more of main.cf."""

    def set_up(self, services: str, *settings: str) -> None:
        self.host.exec("cat > /tmp/services", stdin=services)
        changed = " ".join(f"'{each}'" for each in settings)
        self.host.sh(
            "sed -i '/^smtp  *inet/d' /etc/postfix/master.cf; cat /tmp/services >> /etc/postfix/master.cf; "
            f"{f'postconf -e {changed};' if changed else ''} {RESTART}"
        )

    def files(self) -> str:
        return self.host.sh("cd /etc/postfix; find . -type f ! -name '*.mxfleet-2*' | sort | xargs sha256sum")


@pytest.fixture(scope="module")
def several(lab: Lab) -> Iterator[Several]:
    host = lab.host("pf2")
    host.reset()
    found = Several(host, Postfix())
    yield found
    found.close()


@pytest.fixture
def remote(several: Several) -> Iterator[Several]:
    several.host.sh(KEEP)
    yield several
    several.host.sh(f"{RESTORE}; {RESTART}")


def service(address: str, *overrides: str) -> str:
    return f"{address}:25 inet n - y - - smtpd\n" + "".join(f"  -o {each}\n" for each in overrides)


def test_a_listener_with_rules_of_its_own_is_a_conflict_and_nothing_is_changed(remote: Several) -> None:
    own = f"{{ smtpd_sender_restrictions = {OWN_RULES} }}"
    remote.set_up(service("127.0.0.2") + service(remote.host.address, own))
    before = remote.files()
    error = remote.refused(Conflict)
    assert f"{remote.host.address}:25/inet" in error.detail
    assert OWN_RULES in error.detail
    assert remote.files() == before
    assert remote.reply(SENDER) == "accepted"


def test_rules_behind_postscreen_are_a_conflict_too(remote: Several) -> None:
    remote.set_up(
        "smtp inet n - y - 1 postscreen\n"
        f"smtpd pass - - y - - smtpd -o smtpd_sender_restrictions={OWN_RULES}\n"
        "dnsblog unix - - y - 0 dnsblog\ntlsproxy unix - - y - 0 tlsproxy\n"
    )
    assert "smtp/inet, behind it smtpd/pass" in remote.refused(Conflict).detail


def test_every_listener_is_proven_and_what_holds_for_submission_is_told(remote: Several) -> None:
    submission = "submission inet n - y - - smtpd -o smtpd_sender_restrictions=\n"
    remote.set_up(service(remote.host.address) + service(SECOND) + submission)
    note = next(each for each in remote.plan().notes if each.startswith("submission/inet"))
    assert "the block does not hold there" in note
    result = remote.block()
    assert result.ended is Ended.SUCCEEDED
    one, two, told = result.after["listeners"]
    assert [(each["address"], each["reply"][:3]) for each in (one, two)] == [
        (remote.host.address, "550"),
        (SECOND, "550"),
    ]
    assert told["not_asked"] in note
    assert "Sender address blocked" in remote.reply(SENDER)
    assert remote.reply(SENDER, port=587) == "accepted"
    assert remote.unblock().data.get("still_refused_by") is None
    assert remote.reply(SENDER) == "accepted"


def test_what_only_the_proof_finds_is_taken_back(remote: Several) -> None:
    """master(8) still starts the second smtpd with an override that master.cf has no longer."""
    own = service(SECOND, f"smtpd_sender_restrictions={OWN_RULES}")
    remote.set_up(service(remote.host.address) + own, f"smtpd_sender_restrictions = check_sender_access hash:{MAP}")
    remote.host.sh(f"printf 'bad@one.test REJECT\\n' > {MAP}; postmap {MAP}")
    remote.host.sh(f"sed -i '/-o smtpd_sender_restrictions={OWN_RULES}/d' /etc/postfix/master.cf")
    before = remote.files()
    result = remote.block()
    assert result.ended is Ended.FAILED
    assert result.error is not None
    assert f"{SECOND}:25/inet" in result.error.detail
    assert [each["reply"][:3] for each in result.after["listeners"]] == ["550", "250"]
    assert remote.host.sh(f"cat {MAP}") == "bad@one.test REJECT\n"
    assert remote.files().count("\n") == before.count("\n")
    assert remote.reply(SENDER) == "accepted"


@pytest.mark.parametrize("footer", [r"\c. For help call 555 quoting $localtime", "For help see https://help.test/"])
@pytest.mark.parametrize("text", ["Sender address blocked", "Domain refused"])
def test_an_unblock_that_frees_nobody_names_what_still_refuses(remote: Several, footer: str, text: str) -> None:
    remote.set_up(service(remote.host.address), f"smtpd_reject_footer = {footer}")
    for operation in (SenderBlock("evil.test", text=text), SenderBlock("n3@evil.test")):
        assert remote.block(operation).ended is Ended.SUCCEEDED
    result = remote.unblock("n3@evil.test")
    assert (result.ended, result.data["still_refused_by"]) == (Ended.SUCCEEDED, ["evil.test"])
    assert f"rejected: {text}" in result.data["notes"][0]
    assert "For help" in result.after["blocked"]["text"]
    assert "our block of evil.test" in result.data["notes"][1]
    again = remote.unblock("n3@evil.test")
    assert (again.ended, again.data["still_refused_by"]) == (Ended.UNCHANGED, ["evil.test"])
    assert remote.unblock("evil.test").data.get("still_refused_by") is None


def test_a_block_under_soft_bounce_is_made_and_the_plan_says_why_the_answer_is_soft(remote: Several) -> None:
    remote.set_up(service(remote.host.address), "soft_bounce = yes")
    assert any("soft_bounce" in note for note in remote.plan().notes)
    result = remote.block()
    assert (result.ended, result.after["blocked"]["code"]) == (Ended.SUCCEEDED, "450")
    assert "450 4.7.1" in remote.reply(SENDER)
    assert remote.block().ended is Ended.UNCHANGED
    assert remote.unblock().ended is Ended.SUCCEEDED


def test_a_sender_that_another_rule_refuses_is_told_as_not_ours(remote: Several) -> None:
    remote.set_up(service(remote.host.address))
    remote.block()
    remote.host.sh(
        f"printf '{SENDER} 554 5.7.1 no mail from here\\n' > {MAP}; postmap {MAP}; "
        f"postconf -e 'smtpd_recipient_restrictions = check_sender_access hash:{MAP}'; {RESTART}"
    )
    result = remote.unblock()
    assert (result.ended, result.data["still_refused_by"]) == (Ended.SUCCEEDED, ["not ours"])
    assert "no mail from here" in result.data["notes"][0]
