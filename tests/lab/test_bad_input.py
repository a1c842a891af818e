"""Input that nobody should send, at the running service and, where it is valid, all the way to real hosts.

What is refused gets a 4xx that names the field, and never reaches a host; what is accepted arrives there exactly.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.lab.config import OUTSIDER
from tests.lab.lab import Host, Lab
from tests.lab.service import CUSTOMER, Json, People, asked, await_true

pytestmark = pytest.mark.lab
TARGET = "pf1/postfixEXT"
CONFIG = "/etc/postfixEXT"


@pytest.fixture(scope="module")
def host(lab: Lab, people: People) -> Iterator[Host]:
    """pf1, whose outer instance has its sender check wired. At the end nothing may have been run there by any input."""
    found = lab.host("pf1")
    found.reset()
    lab.sink.reset()
    people.alice.ended(people.changed("sender.block", TARGET, pattern="first@x.example"))
    yield found
    assert found.sh("find / -xdev -name '*PWN*' -not -path '/proc/*'") == ""
    people.alice.ended(people.changed("sender.unblock", TARGET, pattern="first@x.example"))


def problem(answer: httpx2.Response) -> Json:
    """The answer's problem document, which has to say what was wrong and how to find it in the log."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:300])
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    found = answer.json()
    assert found["status"] == answer.status_code
    assert found["code"]
    assert found["request_id"]
    return found


def refused(people: People, operation: str, field: str, code: str, **params: Json) -> None:
    """A job with these params is 422 with this field and code."""
    found = problem(people.alice.ask("POST", "jobs/", asked(operation, TARGET, params)))
    assert found["status"] == 422
    assert (field, code) in {(each["field"], each["code"]) for each in found["errors"]}, found


NO_ADDRESS = {
    "1 semicolon": "a@b;touch PWN",
    "2 substitution": "$(touch PWN)@x.y;",
    "3 backticks": "`touch PWN` @x.example",
    "4 pipe": "a@b|touch PWN",
    "5 ampersand": "a@b&&touch PWN",
    "6 fish": "\\'\";touch PWN;#",
    "12 newline": "a@b.example\nOK@x.example REJECT",
    "13 header": "a@b.example\r\nBcc: z",
    "14 leading space": " a@b.example",
    "15 NUL": "a@b.example\x00.evil",
    "16 comment": "a@b.example #x",
    "16 tab": "a@b.example\tOK",
    "17 long local": "a" * 65 + "@b.example",
    "17 long domain": "a@" + ".".join(["b" * 60] * 5),
    "17 very long": "a" * 10_000 + "@b.example",
    "18 two ats": "a@b@c.example",
    "18 no local": "@b.example",
    "18 no domain": "a@",
    "18 empty": "",
    "21 override": "a\u202eb@x.example",
    "21 zero width": "a\u200bb@x.example",
    "23 literal": "a@[127.0.0.1]",
    "23 literal 6": "a@[IPv6:::1]",
}


@pytest.mark.parametrize("pattern", NO_ADDRESS.values(), ids=NO_ADDRESS)
def test_what_is_no_address_is_refused_and_not_repaired(people: People, host: Host, pattern: str) -> None:
    refused(people, "sender.block", "params.pattern", "bad_pattern", pattern=pattern)


@pytest.mark.parametrize("pattern", ["MAILER-DAEMON", "postmaster@pf1.lab.test", "postmaster@x.example"])
def test_mailboxes_that_must_be_reachable_are_protected(people: People, host: Host, pattern: str) -> None:
    refused(people, "sender.block", "params.pattern", "protected", pattern=pattern)


@pytest.mark.parametrize("pattern", ["*@*", ".", "@", ".com", "com"])
def test_everybody_is_too_broad_a_sender(people: People, host: Host, pattern: str) -> None:
    refused(people, "sender.block", "params.pattern", "too_broad", pattern=pattern)


GOOD = (
    "o'brien@x.example",
    "user+tag=1@x.example",
    "a/b@x.example",
    "{x}@y.example",
    "!foo@x.example",
    '"quoted local"@x.example',
    "$(touch$IFS/tmp/PWN)@x.example".replace("(", "{").replace(")", "}"),
    "`touch$IFS/tmp/PWN`@x.example",
)
"""Rows 7 to 11, and what RFC 5321 allows of rows 1 to 5: valid, and nothing for a shell to see."""


def knock(host: Host, sender: str) -> str:
    tried = host.inject(sender=sender, recipients=("r@ok.test",), stop_at="rcpt", source=OUTSIDER)
    return (tried.errors or ["250"])[0]


@pytest.mark.timeout(180)
def test_an_odd_but_valid_sender_is_blocked_exactly_as_it_is_written(people: People, host: Host) -> None:
    for sender in GOOD:
        job = people.changed("sender.block", TARGET, pattern=sender)
        run = people.alice.only_run(job)
        if job["state"] == "failed":
            assert run["error"]["code"] == "unsupported", (sender, run["error"])
            assert knock(host, sender) == "250"
            continue
        people.alice.ended(job)
        assert knock(host, sender).startswith("550 5.7.1"), sender
        assert knock(host, sender.replace("@", "z@").replace('"z@', 'z"@')) == "250"
    listed = {row["pattern"] for row in people.alice.run("block.list", TARGET)["result"]["ours"]}
    for sender in GOOD:
        if sender in listed:
            people.alice.ended(people.changed("sender.unblock", TARGET, pattern=sender))
            assert knock(host, sender) == "250"
    assert len(listed) > len(GOOD) // 2


def test_the_null_sender_is_blocked_only_with_the_word_for_it(people: People, host: Host) -> None:
    assert knock(host, "") == "250"
    people.alice.ended(people.changed("sender.block", TARGET, pattern="<>"))
    assert knock(host, "").startswith("550 5.7.1")
    assert knock(host, "somebody@x.example") == "250"
    people.alice.ended(people.changed("sender.unblock", TARGET, pattern="<>"))
    assert knock(host, "") == "250"


def test_a_domain_in_its_own_letters_is_the_same_as_in_ascii(people: People, host: Host) -> None:
    people.alice.ended(people.changed("sender.block", TARGET, pattern="used@exämple.com"))
    assert knock(host, "used@xn--exmple-cua.com").startswith("550 5.7.1")
    people.alice.ended(people.changed("sender.unblock", TARGET, pattern="used@xn--exmple-cua.com"))
    assert knock(host, "used@xn--exmple-cua.com") == "250"


BAD_MATCHES = {
    "27 back reference": r"subject=/(a)\1/",
    "27 look ahead": "subject=/(?=x)/",
    "27 look behind": "subject=/(?<!a)b/",
    "27 repeat": "subject=/a{1001}/",
    "27 bracket": "subject=/[/",
    "29 long": "subject=/" + "x" * 100_000 + "/",
    "30 any byte": r"subject=/\C/",
}


@pytest.mark.parametrize("match", BAD_MATCHES.values(), ids=BAD_MATCHES)
def test_a_pattern_that_cannot_be_is_refused(people: People, host: Host, match: str) -> None:
    refused(people, "queue.purge", "params.match", "bad_pattern", match=match)


@pytest.mark.parametrize("match", ["subject=/.*/", "from:*", "size>=0"])
def test_everything_is_purged_only_when_all_is_said(people: People, host: Host, match: str) -> None:
    answer = people.alice.ask("POST", "jobs/", asked("queue.purge", TARGET, {"match": match}))
    assert problem(answer)["errors"][0]["code"] == "matches_all"


@pytest.mark.parametrize("match", ["subject=/(a+)+$/", "subject=/(x+x+)+y/", "subject=/(?i)ÄÖ/"])
def test_a_pattern_that_kills_other_engines_is_judged(people: People, host: Host, match: str) -> None:
    people.alice.ended(people.alice.job("queue.list", TARGET, match=match))


BAD_IDS = (
    "ALL", "all", "-", "-d", "--help", "../../etc/passwd", "3F5A123456*", "3F5A123456!", "1rAbCd-000123-Xy", "0", "-1",
    "1e9", "٣", "", " 3F5A123456", "3F5A123456\n", "3F5A123456;touch PWN", "$(touch PWN)",
)  # fmt: skip


@pytest.mark.parametrize("operation", ["queue.purge", "queue.hold", "queue.release"])
def test_what_is_no_queue_id_is_refused(people: People, host: Host, operation: str) -> None:
    before = host.sh(f"postqueue -c {CONFIG} -p")
    for queue_id in BAD_IDS:
        refused(people, operation, "params.queue_ids[0]", "bad_queue_id", queue_ids=[queue_id])
    assert host.sh(f"postqueue -c {CONFIG} -p") == before


def test_a_queue_id_of_another_case_is_another_message_and_one_given_often_counts_once(
    people: People, host: Host
) -> None:
    [queue_id] = host.inject(recipients=("r@defer.test",)).ids
    await_true(lambda: host.sh(f"find /var/spool/postfixEXT/deferred -name {queue_id}"), 20)
    if queue_id.lower() != queue_id:
        other = people.alice.ask("POST", "jobs/", asked("queue.hold", TARGET, {"queue_ids": [queue_id.lower()]}))
        assert problem(other)["errors"][0]["code"] == "bad_queue_id"
    run = people.alice.run("queue.hold", TARGET, queue_ids=[queue_id] * 1000)
    assert (run["result"]["asked"], run["result"]["done"]) == (1, 1)
    people.alice.ended(people.changed("queue.purge", TARGET, queue_ids=[queue_id]))


def new_host(**change: Json) -> Json:
    body = {"name": "bad", "customer": CUSTOMER, "address": "192.0.2.1", "username": "x", "credential": "lab"}
    return body | change


HOSTS = {
    "41 option": ({"address": "-oProxyCommand=touch PWN"}, "address", "invalid"),
    "42 semicolon": ({"address": "mx1;id"}, "address", "invalid"),
    "42 space": ({"address": "mx1 mx2"}, "address", "invalid"),
    "42 newline": ({"address": "mx1\n"}, "address", "invalid"),
    **{
        f"43 {each}": ({"address": each}, "address", "forbidden_range")
        for each in ("localhost", "127.1", "0", "2130706433", "0x7f.1", "::1", "::ffff:127.0.0.1")
    },
    **{
        f"44 {each}": ({"address": each}, "address", "forbidden_range")
        for each in ("169.254.169.254", "redis.svc.cluster.local")
    },
    "46 path": ({"address": "user@mx1:22/../x"}, "address", "invalid"),
    "46 port": ({"port": "22"}, "port", "wrong_type"),
    "46 port zero": ({"port": 0}, "port", "invalid"),
    "46 port float": ({"port": 22.0}, "port", "wrong_type"),
    "46 port high": ({"port": 99_999}, "port", "invalid"),
    "47 taken": ({"name": "pf1"}, "name", "name_taken"),
    "48 wildcard": ({"host_key": "* ssh-ed25519 AAAA"}, "host_key", "invalid"),
    "48 revoked": ({"host_key": "@revoked * ssh-ed25519 AAAA"}, "host_key", "invalid"),
}


@pytest.mark.parametrize(("change", "field", "code"), HOSTS.values(), ids=HOSTS)
def test_a_host_that_cannot_or_must_not_be_is_refused(people: People, change: Json, field: str, code: str) -> None:
    found = problem(people.admin.ask("POST", "hosts/", new_host(**change)))
    assert found["status"] == 422
    assert (found["errors"][0]["field"], found["errors"][0]["code"]) == (field, code), found
    assert people.admin.ask("GET", "hosts/bad/").status_code == 404


def test_a_host_key_of_ten_megabytes_is_413(people: People) -> None:
    assert problem(people.admin.ask("POST", "hosts/", new_host(host_key="x" * 10_000_000)))["status"] == 413


def key(*options: str) -> str:
    """A private key made by ssh-keygen."""
    made = 'd=$(mktemp -d); ssh-keygen -q -f $d/k "$@" && cat $d/k; rm -r $d'
    return subprocess.run(["sh", "-c", made, "sh", *options], capture_output=True, text=True, check=True).stdout


def test_a_key_that_cannot_be_used_is_refused_and_not_echoed(people: People) -> None:
    good = key("-t", "ed25519", "-N", "")
    bad = {
        "protected": key("-t", "ed25519", "-N", "secret"),
        "short": key("-t", "rsa", "-b", "1024", "-N", ""),
        "public": people.admin.get("credentials/lab/")["public_key"],
        "cut": good[: len(good) // 2],
        "nothing": "x",
    }
    for name, text in bad.items():
        body = {"name": "bad", "customer": CUSTOMER, "private_key": text}
        answer = people.admin.ask("POST", "credentials/", body)
        assert problem(answer)["errors"][0]["code"] == "unusable_key", name
        assert name == "nothing" or text.splitlines()[-2 if "\n" in text.strip() else 0] not in answer.text


@pytest.mark.parametrize("value", ["x" * 256, "a b", "é".encode(), ""])
def test_a_malformed_idempotency_key_is_400(people: People, value: str | bytes) -> None:
    answer = people.alice.ask("POST", "jobs/", asked("queue.list", TARGET, {}), headers={"Idempotency-Key": value})
    assert problem(answer)["status"] == 400


def test_the_same_key_means_one_job_and_another_body_is_refused(people: People, host: Host) -> None:
    headers = {"Idempotency-Key": "lab-1"}
    answers = [people.alice.ask("POST", "jobs/", asked("queue.list", TARGET, {}), headers=headers) for _ in range(3)]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true", "true"]
    other = people.alice.ask("POST", "jobs/", asked("queue.list", TARGET, {"limit": 1}), headers=headers)
    assert problem(other)["code"] == "idempotency_key_reused"
    charlie = people.charlie.ask("POST", "jobs/", asked("queue.list", TARGET, {}), headers=headers)
    assert problem(charlie)["errors"][0]["code"] == "unknown_target"


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer x y", "Bearer " + "x" * 8000, "bearer bearer", "Basic eDp4"])
def test_no_token_that_is_known_is_401(people: People, value: str) -> None:
    answer = httpx2.get(f"{people.service.url}/api/v1/whoami/", headers={"Authorization": value})
    assert problem(answer)["status"] == 401
    assert answer.headers["WWW-Authenticate"]


def test_headers_give_nobody_another_name_or_origin(people: People) -> None:
    given = {"X-Forwarded-For": "127.0.0.1", "X-User-ID": "admin", "X-HTTP-Method-Override": "DELETE", "Origin": "null"}
    answer = people.alice.ask("GET", "whoami/", headers=given)
    assert answer.json()["username"] == "alice"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert people.alice.ask("GET", "whoami/", headers={"Host": "evil.example"}).status_code == 400


BODIES: dict[str, tuple[bytes, dict[str, str], tuple[int, ...]]] = {
    "56 twice": (b'{"operation": "queue.list", "operation": "queue.purge"}', {}, (400,)),
    "57 NaN": (b'{"params": NaN}', {}, (400,)),
    "57 huge": (b'{"params": {"limit": 1e999}}', {}, (400,)),
    "57 digits": (b'{"params": {"limit": ' + b"9" * 5000 + b"}}", {}, (400, 422)),
    "58 deep": (b"[" * 100_000, {}, (400,)),
    "58 large": (b'{"reason": "' + b"x" * 300 * 1024 + b'"}', {}, (413,)),
    "58 gzip": (b"\x1f\x8b\x08\x00", {"Content-Encoding": "gzip"}, (415,)),
    "58 form": (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, (415,)),
    "59 more": (b'{"operation": "queue.list", "state": "approved", "__proto__": {}}', {}, (422,)),
    "65 surrogate": (b'{"reason": "\\ud800"}', {}, (400, 422)),
    "65 no UTF-8": (b'{"reason": "\xff"}', {}, (400,)),
    "67 list": (b"[]", {}, (422,)),
    "67 null": (b"null", {}, (422,)),
    "67 string": (b'{"operation": "queue.list", "target": "all"}', {}, (422,)),
    "67 flag": (b'{"operation": "queue.list", "target": {"all": true}, "dry_run": 1}', {}, (422,)),
    "67 word": (b'{"operation": "queue.list", "target": {"all": "true"}}', {}, (422,)),
}


@pytest.mark.parametrize(("body", "headers", "statuses"), BODIES.values(), ids=BODIES)
def test_a_body_that_is_not_as_agreed_is_refused(
    people: People, body: bytes, headers: dict[str, str], statuses: tuple[int, ...]
) -> None:
    answer = people.alice.http.post("jobs/", content=body, headers={"Content-Type": "application/json"} | headers)
    assert problem(answer)["status"] in statuses


TEXTS = ('=HYPERLINK("http://x")', "@SUM(1)", "-1", "\x1b[2J\x07", "x\n2026-01-01 INFO approved by root",
         "<script>alert(1)</script>", "<!channel>", "{{7*7}}{% debug %}${jndi:x}%s%n")  # fmt: skip


def test_text_stays_what_it_is_and_is_one_line_of_the_export(people: People, host: Host) -> None:
    for text in TEXTS:
        body = asked("queue.hold", TARGET, {"match": "from:none@x.example"}) | {"reason": text}
        answer = people.alice.ask("POST", "jobs/", body)
        if answer.is_success:
            assert people.alice.get(f"jobs/{answer.json()['id']}/")["reason"] == text
        else:
            assert problem(answer)["errors"][0]["field"] == "reason"
    raw = people.admin.ask("GET", "audit/export/").content
    assert b"\x1b" not in raw
    assert all(json.loads(line) for line in raw.splitlines())
    too_long = asked("queue.hold", TARGET, {"match": "from:x@x.example"}) | {"reason": "x" * 2001}
    assert problem(people.alice.ask("POST", "jobs/", too_long))["errors"][0]["field"] == "reason"
    empty = asked("queue.hold", TARGET, {"match": "from:x@x.example"}) | {"reason": ""}
    assert problem(people.alice.ask("POST", "jobs/", empty))["errors"][0]["field"] == "reason"


QUERIES = {
    "tenant=2&tenant=1": 400,
    "scope=all&user=x": 400,
    "ordering=password": (400, 422),
    "limit=-1": 422,
    "limit=1e9": 422,
    "limit=501": 422,
    "cursor=forged": 400,
}


@pytest.mark.parametrize(("query", "status"), QUERIES.items(), ids=QUERIES)
def test_a_query_that_is_not_agreed_is_refused_and_never_wider(people: People, query: str, status: Any) -> None:
    assert problem(people.charlie.ask("GET", f"jobs/?{query}"))["status"] in (
        status if isinstance(status, tuple) else (status,)
    )


def test_paths_of_others_and_of_nothing_are_the_same_404(people: People, host: Host) -> None:
    job = people.alice.job("queue.list", TARGET)
    paths = (f"jobs/{job['id']}/", f"jobs/{job['id'].upper()}/", "jobs/11111111-1111-1111-8111-111111111111/")
    answers = [problem(people.charlie.ask("GET", path)) for path in (*paths, "jobs/..%2f..%2fetc/", "hosts/pf1/")]
    assert {answer["status"] for answer in answers} == {404}
    assert len({(answer["title"], answer["detail"]) for answer in (answers[0], answers[2])}) == 1
    assert people.alice.ask("TRACE", "jobs/").status_code == 405


TIMES = ("2020-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2030-01-01T00:00:00", "2016-12-31T23:59:60Z", "2026-02-30")


@pytest.mark.parametrize("moment", TIMES)
def test_a_time_that_cannot_be_is_refused(people: People, moment: str) -> None:
    answer = people.alice.ask(
        "POST", "jobs/", asked("sender.block", TARGET, {"pattern": "a@x.example", "expires_at": moment})
    )
    found = problem(answer)
    assert (found["status"], found["errors"][0]["field"]) == (422, "params.expires_at")


def test_hostile_mail_is_listed_as_data_and_nothing_is_guessed(people: People, host: Host) -> None:
    fake = '{"queue_name": "deferred", "queue_id": "ABCDEF1234", "arrival_time": 1, "sender": "x"}'
    subjects = ["\x1b[2J", fake, "x" * 900, "=?utf-8?q?=1B[2J?=", '","queue_id":"ABCDEF1234'.replace(",", ";")]
    ids = []
    for subject in subjects:
        ids += host.inject(sender="hostile@bulk.example", recipients=("r@defer.test",), subject=subject).ids
    huge = b"Subject: " + b"\r\n ".join([b"y" * 900] * 1100) + b"\r\n\r\nbody\r\n"
    ids += host.inject(sender="hostile@bulk.example", recipients=("r@defer.test",), data=huge).ids
    quoted = '"{\\"queue_id\\":\\"ABCDEF1234\\"}"@x.example'
    ids += host.inject(sender=quoted, recipients=("r@defer.test",)).ids
    assert len(ids) == len(subjects) + 2
    match = "from:hostile@bulk.example OR from-domain:x.example"
    entries = people.alice.entries(TARGET, match, fields=["queue_id", "sender", "subject"])
    assert {entry["queue_id"] for entry in entries} == set(ids)
    assert {entry["sender"] for entry in entries} == {"hostile@bulk.example", quoted}
    assert fake in {entry["subject"] for entry in entries}
    raw = people.alice.ask("GET", f"jobs/{people.alice.job('queue.list', TARGET, match=match)['id']}/runs/").content
    assert b"\x1b" not in raw
    people.alice.ended(people.changed("queue.purge", TARGET, match=match, mode="delete"))
