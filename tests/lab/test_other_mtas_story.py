"""The product's story against MTAs other than Postfix, over HTTP: what is claimed is compared with what root sees."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from fleet.mta.host.commands import HELPERS
from fleet.ssh.quoting import SCRIPTS
from tests.lab.config import OUTSIDER
from tests.lab.lab import Host, Lab
from tests.lab.service import ENDED, Json, People, Person, Service, await_true
from tests.lab.sink import Rule

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
SPAMMER = "newsletter@sillyplace.test"
FRIEND = "friend@ok.test"
LATER = Rule("451 4.7.1 sink: later", "rcpt")


@dataclass(frozen=True)
class Eyes:
    """How root looks at an MTA without us.

    `queued` and `held`: commands that print queue IDs, one a line. `hold`: what the administrator types, with {id}.
    `forbidden`: what would be a root shell and must be refused.
    `files` and `config`: commands that tell every byte of the queue and of the configuration. `log`: the file.
    `routes`: the MTA's own word on an {address}; `routed`: what stands in it for one that goes to another host.
    """

    host: str
    instance: str
    queued: str
    held: str
    hold: str
    forbidden: str
    files: str
    config: str
    log: str
    routes: str
    routed: str

    @property
    def name(self) -> str:
        return f"story-{self.host}/{self.instance}"


SUMS = "find {} -type f ! -name '*mxfleet-2*' -exec sha256sum {{}} + | sort -k 2"

MAILQ = "sed -nE 's/^([0-9A-Za-x]{8}[0-9]{5,})[-*X ].*/\\1/p' | sort -u"
SENDMAIL = Eyes(
    host="sm2",
    instance="sendmail",
    queued=f"{{ mailq; mailq -qQ; }} | {MAILQ}",
    held=f"mailq -qQ | {MAILQ}",
    hold="sendmail -Q'not now' -qI{id}",
    forbidden="/usr/sbin/sendmail -C/tmp/x.cf -q",
    files=SUMS.format("/var/spool/mqueue"),
    # Berkeley DB writes a number of its own into every file.
    config=f"{SUMS.format('/etc/mail')} | grep -v 'access.db$'; makemap -u hash /etc/mail/access | sort",
    log="/var/log/mail.log",
    routes="sendmail -bv {address}",
    routed="mailer esmtp, host ok.test",
)
BP = "exim4 -bp | sed -nE 's/^ *[0-9]+[mhd] +[^ ]+ +([0-9A-Za-z]{6}-[0-9A-Za-z-]+) .*/\\1/p'"
EXIM = Eyes(
    host="ex3",
    instance="exim",
    queued=BP,
    held=BP.replace(" .*/", r" .*\*\*\* frozen \*\*\*$/"),
    hold="exim4 -Mf {id}",
    forbidden="/usr/sbin/exim4 -be '${run{/bin/id}}'",
    files=SUMS.format("/var/spool/exim4/input"),
    config=SUMS.format("/etc/exim4"),
    log="/var/log/exim4/mainlog",
    routes="exim4 -bt {address}",
    routed="router = dnslookup",
)
EYES = (SENDMAIL, EXIM)


class Story:
    """One host freshly started; of the customer who owns it gina asks and hugo agrees."""

    def __init__(self, eyes: Eyes, host: Host, admin: Person, gina: Person, hugo: Person) -> None:
        self.eyes = eyes
        self.admin = admin
        self.host = host
        self.gina = gina
        self.hugo = hugo

    def inject(self, sender: str, to: str = "r{i}@defer.test", n: int = 1, **more: Json) -> None:
        """Messages that outsiders send, and that are deferred once."""
        before = len(self.queued())
        assert self.host.inject(n=n, sender=sender, recipients=(to,), source=OUTSIDER, **more).accepted == n
        await_true(lambda: self._is_settled(before + n), 60, self.queued)

    def _is_settled(self, count: int) -> bool:
        states = [entry["state"] for entry in self.gina.entries(self.eyes.name)]
        return len(states) == count and set(states) <= {"deferred", "hold"}

    def queued(self) -> set[str]:
        return set(self.host.sh(self.eyes.queued).split())

    def held(self) -> set[str]:
        return set(self.host.sh(self.eyes.held).split())

    def files(self) -> str:
        return self.host.sh(self.eyes.files)

    def config(self) -> str:
        return self.host.sh(self.eyes.config)

    def of(self, sender: str) -> set[str]:
        return {entry["queue_id"] for entry in self.gina.entries(self.eyes.name, f"from:{sender}")}

    def done(self, operation: str, **params: Json) -> Json:
        """The job, agreed to where the policy wants that, which has to succeed."""
        return self.gina.ended(self._agreed(self.gina.job(operation, self.eyes.name, **params)))

    def undone(self, job: Json) -> Json:
        return self.gina.ended(self._agreed(self.gina.undo(job)))

    def _agreed(self, job: Json) -> Json:
        if job["state"] == "awaiting_approval":
            self.hugo.approve(job)
        return self.gina.wait(job, 60, ENDED)

    def result(self, operation: str, **params: Json) -> Json:
        """What a job says that needs nobody's agreement."""
        return self.gina.run(operation, self.eyes.name, **params)["result"]

    def knock(self, sender: str) -> str:
        """What a stranger hears who says MAIL FROM and RCPT."""
        tried = self.host.inject(sender=sender, recipients=("r@ok.test",), stop_at="rcpt", source=OUTSIDER)
        return (tried.errors or ["250"])[0]

    def discover(self) -> None:
        name = f"story-{self.eyes.host}"
        self.admin.ended(self.admin.wait(self.admin.post(f"hosts/{name}/discover/", {}, Prefer="wait=30")))

    def leave_no_other_rights(self) -> None:
        """As hosts/NAME/sudoers/ says: the helper scripts root-owned, this file the only rule."""
        for script in SCRIPTS.values():
            self.host.exec(f"install -D -m 755 /dev/stdin {HELPERS}/{script.name}", stdin=script.read_text())
        self.discover()
        lines = self.admin.ask("GET", f"hosts/story-{self.eyes.host}/sudoers/").text
        self.host.exec("cat > /etc/sudoers.d/mxfleet && chmod 440 /etc/sudoers.d/mxfleet", stdin=lines)
        self.host.sh("visudo -c -f /etc/sudoers.d/mxfleet && rm /etc/sudoers.d/fleetops")
        self.discover()

    def anywhere(self, queue_id: str) -> str:
        """The files of the host that have the queue ID in their name."""
        return self.host.sh(f"find / -xdev -type f -name '*{queue_id}*' -not -path '/proc/*'")


@pytest.fixture(scope="module")
def cast(lab: Lab, service: Service, people: People) -> Callable[[Eyes], Story]:
    """The hosts registered with a customer of their own."""
    people.admin.post("customers/", {"slug": "story", "name": "story"})
    key = lab.host(EYES[0].host).private_key
    people.admin.post("credentials/", {"name": "lab-story", "customer": "story", "private_key": key})
    persons = [people.person(name, role, "story") for name, role in (("gina", "operator"), ("hugo", "approver"))]
    for eyes in EYES:
        fields = {"customer": "story", "credential": "lab-story"}
        people.admin.ended(people.register(lab.host(eyes.host), f"story-{eyes.host}", **fields))
    return lambda eyes: Story(eyes, lab.host(eyes.host), people.admin, *persons)


@pytest.fixture(params=EYES, ids=lambda eyes: eyes.host)
def story(request: pytest.FixtureRequest, lab: Lab, cast: Callable[[Eyes], Story]) -> Story:
    found = cast(request.param)
    found.host.reset()
    lab.sink.reset()
    return found


def test_mail_is_held_purged_restored_and_erased_and_undone_to_the_byte(story: Story) -> None:
    story.inject(SPAMMER, n=4)
    story.inject(FRIEND, n=2)
    spam, friends = story.of(SPAMMER), story.of(FRIEND)
    assert story.queued() == spam | friends
    theirs = min(spam)
    story.host.sh(story.eyes.hold.format(id=theirs))
    assert story.held() == {theirs}

    held = story.done("queue.hold", match=f"from:{SPAMMER}")
    assert story.held() == spam
    assert story.gina.only_run(held)["result"]["done"] == len(spam) - 1
    story.undone(held)
    assert story.held() == {theirs}

    before = story.files()
    purged = story.done("queue.purge", match=f"from:{SPAMMER}")
    assert story.queued() == friends
    story.undone(purged)
    assert story.files() == before
    assert story.held() == {theirs}

    one, other = sorted(spam - {theirs})[:2]
    purged = story.done("queue.purge", queue_ids=[one, other])
    kept = {item["queue_id"]: item["id"] for item in story.gina.all(f"quarantine/?job={purged['id']}&state=kept")}
    assert kept.keys() == {one, other}
    story.done("quarantine.restore", ids=[kept[one]])
    story.done("quarantine.erase", ids=[kept[other]])
    assert story.queued() == spam - {other} | friends
    assert story.anywhere(other) == ""

    story.done("queue.purge", match=f"from:{SPAMMER}", mode="delete")
    assert story.queued() == friends
    assert not any(story.anywhere(each) for each in (one, theirs))


def test_mail_is_shown_delivered_flushed_and_bounced(story: Story, lab: Lab) -> None:
    story.inject("one@ok.test", subject="=?utf-8?q?Gr=C3=BC=C3=9Fe?=")
    lab.sink.set("ok2.test", LATER)
    story.inject("two@ok.test", to="two@ok2.test")
    story.inject("back@ok.test")
    [one], [two] = story.of("one@ok.test"), story.of("two@ok.test")

    shown = story.result("message.show", queue_id=one, parts=["envelope", "headers", "body"])
    assert shown["envelope"]["sender"] == "one@ok.test"
    assert [row["value"] for row in shown["headers"] if row["name"] == "Subject"] == ["Grüße"]
    assert "Lab message 1." in shown["body"]["text"]

    put_off = story.result("message.deliver", queue_id=one)
    assert put_off["outcome"] == "deferred"
    assert "451" in put_off["reply"]
    lab.sink.set("defer.test", Rule())
    sent = story.result("message.deliver", queue_id=one, verbose=True)
    assert (sent["outcome"], sent["remote"].split(" ")[0]) == ("sent", "mx.defer.test")
    assert any("RCPT TO:<r1@defer.test>" in line.replace("To:", "TO:") for line in sent["dialogue"])
    assert [message["sender"] for message in lab.sink.messages()] == ["one@ok.test"]
    assert one not in story.queued()
    gone = story.gina.job("message.deliver", story.eyes.name, queue_id=one)
    assert story.gina.only_run(gone)["error"]["code"] == "message_not_found"

    lab.sink.set("ok2.test", Rule())
    story.done("queue.flush", match="to-domain:ok2.test")
    lab.sink.wait(1, "two@ok2.test")
    assert two not in story.queued()

    lab.sink.set("defer.test", LATER)
    story.done("queue.bounce", match="from:back@ok.test")
    [notice] = lab.sink.wait(1, "back@ok.test")
    assert notice["sender"] == ""
    assert story.queued() == set()


def test_a_sender_is_blocked_and_unblocked_and_the_logs_and_routes_are_told(story: Story) -> None:
    config = story.config()
    assert story.knock(SPAMMER) == "250"
    blocked = story.done("sender.block", pattern=SPAMMER)
    assert story.knock(SPAMMER).startswith("55")
    assert story.knock(FRIEND) == "250"
    story.undone(blocked)
    assert story.knock(SPAMMER) == "250"
    assert story.config() == config

    story.inject(FRIEND, to="trace@defer.test")
    [queue_id] = story.queued()
    logged = f"grep -F {queue_id} {story.eyes.log} || true"  # which may come a moment behind the queue
    await_true(lambda: "trace@defer.test" in story.host.sh(logged), 30, lambda: story.host.sh(logged))
    traced = story.result("message.trace", since="1h", **{"from": FRIEND})
    assert {(row["queue_id"], row["recipient"], row["status"]) for row in traced["rows"]} == {
        (queue_id, "trace@defer.test", "deferred")
    }, (traced, story.host.sh(logged))
    lines = story.host.sh(f"grep -F {queue_id} {story.eyes.log}").splitlines()
    found = story.result("log.search", contains=queue_id, since="1h")
    assert (found["matched"], len(found["lines"])) == (len(lines), len(lines))

    [route] = story.result("address.test", address="r@ok.test")["routes"]
    assert [host["name"] for host in route["hosts"]] == ["mx.ok.test"]
    assert story.eyes.routed in story.host.sh(story.eyes.routes.format(address="r@ok.test"))
    probed = story.result("smtp.probe", to="r@defer.test", **{"from": FRIEND})
    assert probed["verdict"] == "deferred"
    assert story.queued() == {queue_id}


def test_the_least_privilege_sudoers_file_lets_every_operation_work_and_nothing_else(story: Story) -> None:
    story.inject("some{i}@ok.test", n=6)
    one, two, three, four, five, six = sorted(story.queued())
    story.leave_no_other_rights()
    try:
        for command in ("id", "/bin/sh -c id", story.eyes.forbidden):
            tried = subprocess.run(
                story.host.ssh_command(f"sudo -n {command}"), capture_output=True, text=True, timeout=30
            )
            assert (tried.returncode, tried.stdout) == (1, ""), command
            assert tried.stderr.startswith("sudo: "), command
        queued = {each["queue_id"] for each in story.gina.entries(story.eyes.name, "subject~lab")}
        assert queued >= {one, two, three, four, five, six}, "sudo itself may mail root of what it refused"
        assert story.result("queue.summary")["total"]["count"] == len(story.queued())
        assert "Lab message" in story.result("message.show", queue_id=one, parts=["body"])["body"]["text"]
        story.done("queue.hold", queue_ids=[one, two])
        assert story.held() == {one, two}
        story.done("queue.release", queue_ids=[one])
        assert story.result("message.deliver", queue_id=two, release=True)["outcome"] == "deferred"
        purged = story.done("queue.purge", queue_ids=[three, four])
        kept = [item["id"] for item in story.gina.all(f"quarantine/?job={purged['id']}&state=kept")]
        story.done("quarantine.restore", ids=kept[:1])
        story.done("quarantine.erase", ids=kept[1:])
        story.done("queue.purge", queue_ids=[five], mode="delete")
        story.done("queue.bounce", queue_ids=[six])
        story.done("queue.flush", match="to-domain:defer.test")
        story.done("sender.block", pattern=SPAMMER)
        assert story.knock(SPAMMER).startswith("55")
        assert SPAMMER in [row["pattern"] for row in story.result("block.list")["ours"]]
        story.done("sender.unblock", pattern=SPAMMER)
        assert story.knock(SPAMMER) == "250"
        assert story.result("log.search", contains=two, since="1h")["matched"]
        assert story.result("message.trace", queue_id=two, since="1h")["rows"]
        assert story.result("address.test", address="r@ok.test")["routes"]
        assert story.result("smtp.probe", to="r@ok.test", **{"from": FRIEND})["verdict"] == "accepted"
    finally:
        story.host.reset()
        story.discover()
