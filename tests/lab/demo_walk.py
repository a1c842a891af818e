"""What the demo shows, by HTTP: register, fill queues, list, trace, block, purge with approval, undo, deliver.

Every step prints what it asks and what the hosts proved. The first surprise ends the walk with status 1.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2

from deploy.child import python
from deploy.env import load
from deploy.supervise import base_url
from tests.lab.config import OUTSIDER, RELAY_CLIENT, USER
from tests.lab.demo import HOSTS
from tests.lab.inject import Order
from tests.lab.lab import Host, Lab

ACME = {"customers": ["acme"]}
SPAMMER = "newsletter@bulk.example"
ENDED = {"planned", "succeeded", "partly_failed", "failed", "rejected", "expired", "cancelled"}


class Surprise(Exception):
    """Something did not go as the demo says it does."""


class Person:
    """Somebody with a token."""

    def __init__(self, name: str, url: str, token: str) -> None:
        self.name = name
        self.http = httpx2.Client(
            base_url=f"{url}/api/v1/", headers={"Authorization": f"Bearer {token}"}, timeout=60, follow_redirects=False
        )

    def get(self, path: str) -> Any:
        return self._ask("GET", path)

    def post(self, path: str, body: dict[str, Any], **headers: str) -> Any:
        return self._ask("POST", path, body, **headers)

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        return self._ask("PATCH", path, body)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
        answer = self.http.request(method, path, json=body, headers=headers)
        if answer.is_error:
            raise Surprise(f"{self.name}: {method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def job(self, operation: str, target: dict[str, Any], params: dict[str, Any], reason: str = "") -> Any:
        """Ask for a job and wait until it has ended or awaits people."""
        body = {"operation": operation, "target": target, "params": params}
        return self.wait(self.post("jobs/", body | ({"reason": reason} if reason else {}), Prefer="wait=30"))

    def wait(self, job: Any, until: frozenset[str] = frozenset(ENDED | {"awaiting_approval"})) -> Any:
        deadline = time.monotonic() + 120
        while job["state"] not in until:
            if time.monotonic() > deadline:
                raise Surprise(f"job {job['id']} is still {job['state']}")
            time.sleep(0.3)
            job = self.get(f"jobs/{job['id']}/")
        return job

    def runs(self, job: Any) -> list[Any]:
        found = self.get(f"jobs/{job['id']}/runs/")["results"]
        return sorted(found, key=lambda run: str(run["instance"] or run["host"]))


def main() -> int:
    env = load()
    url = base_url(env.listen)
    admin = Person("admin", url, (env.data / "admin-token").read_text().strip())
    lab = Lab()
    try:
        olga, peter = _people(admin, url, env.data)
        _register(admin, lab)
        _fill(lab, olga)
        _look(olga)
        _trace(olga)
        block = _block(olga, peter)
        _knock(lab, is_blocked=True)
        purge = _purge(olga, peter)
        _undo(olga, purge)
        _undo(olga, block)
        _knock(lab, is_blocked=False)
        _deliver(olga)
        verified = admin.get("audit/verify/")
        tell("audit", f"{verified['checked']} entries of the chain checked: {'sound' if verified['ok'] else 'BROKEN'}")
    except (Surprise, httpx2.HTTPError) as error:
        print(f"demo: {error}", file=sys.stderr, flush=True)
        return 1
    tell("done", f"everything stays up: API {url}/api/v1/, documentation {url}/api/v1/docs/, stop with Ctrl-C")
    tell("try", f'curl -H "Authorization: Bearer $(cat {env.data}/admin-token)" {url}/api/v1/jobs/')
    return 0


def tell(step: str, text: str) -> None:
    print(f"demo: {step:<9} {' '.join(text.split())}", flush=True)


def expect(job: Any, state: str, person: Person) -> Any:
    """The job, if it ended in `state`; else a Surprise that says what its runs said."""
    if job["state"] != state:
        said = [(run["instance"] or run["host"], run["state"], run["error"]) for run in person.runs(job)]
        raise Surprise(f"{job['operation']} is {job['state']}, not {state}: {job['error']} {json.dumps(said)}")
    return job


def _people(admin: Person, url: str, data: Path) -> tuple[Person, Person]:
    """Each with a token of their own from the server's machine: with one that the administrator made peter decides
    nothing."""
    admin.post("customers/", {"slug": "acme", "name": "Acme"})
    found = []
    for name, role in (("olga", "operator"), ("peter", "approver")):
        admin.post("users/", {"username": name, "roles": [{"role": role, "customer": "acme"}]})
        path = data / f"{name}-token"
        command = python("manage.py", "first_token", name, "--token-file", str(path))
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(Person(name, url, path.read_text().strip()))
    tell("people", "olga may request for the customer acme, peter may approve")
    tell("people", f"each has a first token of their own, from the server: {data}/olga-token, {data}/peter-token")
    return found[0], found[1]


def _register(admin: Person, lab: Lab) -> None:
    """Hosts get their key only after it was compared with what is known of them by another way."""
    key = lab.host(HOSTS[0]).private_key
    admin.post("credentials/", {"name": "demo", "customer": "acme", "private_key": key})
    for name in HOSTS:
        host = lab.host(name)
        login = {"username": USER, "credential": "demo", "become": "sudo"}
        admin.post("hosts/", {"name": name, "customer": "acme", "address": host.address, **login})
        scanned = admin.post(f"hosts/{name}/scan-host-key/", {})
        if scanned["host_key"].split()[:2] != host.host_key.split():
            raise Surprise(f"{name} shows another host key than it was given")
        admin.patch(f"hosts/{name}/", {"host_key": scanned["host_key"]})
        expect(admin.wait(admin.post(f"hosts/{name}/discover/", {}, Prefer="wait=30")), "succeeded", admin)
    for row in admin.get("instances/?customer=acme")["results"]:
        tell("fleet", f"{row['id']}: {row['mta']} {row['version']}")
    tell("fleet", "every host key was compared with what is known of it, and pinned")


def _fill(lab: Lab, olga: Person) -> None:
    for number, name in enumerate(HOSTS):
        host = lab.host(name)
        _send(host, Order(sender=SPAMMER, recipients=("r{i}@defer.test",), n=50, size=20_000))
        _send(host, Order(sender=SPAMMER, recipients=(f"early{number}@ok.test",)))
        _send(host, Order(sender=f"friend{number}@ok.test", recipients=("r{i}@defer.test",), n=5))
    tell("queues", f"{len(HOSTS)} x 50 messages of {SPAMMER} and 5 of others sent to a domain that defers")
    tell("queues", "waiting until each of them was tried once")
    deadline = time.monotonic() + 90
    while (states := _states(olga)) != {"deferred": 55 * len(HOSTS)}:
        if time.monotonic() > deadline:
            raise Surprise(f"the queues do not come to rest: {states}")
        time.sleep(1)


def _send(host: Host, order: Order) -> None:
    sent = host.inject(order, source=RELAY_CLIENT)
    if sent.accepted != order.n:
        raise Surprise(f"{host.name} took {sent.accepted} of {order.n} messages: {sent.errors}")


def _states(olga: Person) -> Counter[str]:
    job = expect(olga.job("queue.summary", ACME, {"group_by": ["state"]}), "succeeded", olga)
    groups = [row for run in olga.runs(job) for row in run["result"]["groups"]["state"]]
    return sum((Counter({row["value"]: row["count"]}) for row in groups), Counter())


def _look(olga: Person) -> None:
    job = expect(olga.job("queue.summary", ACME, {"group_by": ["from-domain"]}), "succeeded", olga)
    for run in olga.runs(job):
        groups = ", ".join(f"{row['value']} {row['count']}" for row in run["result"]["groups"]["from-domain"])
        tell("list", f"{run['instance']}: {run['result']['total']['count']} messages ({groups or 'empty'})")


def _trace(olga: Person) -> None:
    """The same rows from five kinds of log: who has already got it?"""
    params = {"from": SPAMMER, "to": "early*", "since": "1h"}
    job = expect(olga.job("message.trace", ACME, params), "succeeded", olga)
    for run in olga.runs(job):
        for row in run["result"]["rows"]:
            told = f"{row['recipient']} {row['status']} to {row['relay']}: {row['reply']}"
            tell("trace", f"{run['instance']}, {row['queue_id']}: {told}")


def _block(olga: Person, peter: Person) -> Any:
    """Where the first block wires a check into a configuration, a second person looks at the diff."""
    job = olga.job("sender.block", ACME, {"pattern": SPAMMER, "for": "7d"}, "newsletter loop")
    for note, instances in _differences(olga, job).items():
        tell("note", f"{', '.join(instances)}: {note}")
    job = expect(_approved(olga, peter, job), "succeeded", olga)
    for run in olga.runs(job):
        blocked = run["evidence"]["after"]["blocked"]
        tell(
            "block", f"{run['instance']}: {run['state']}, its SMTP server now says {blocked['code']} {blocked['text']}"
        )
    return job


def _differences(olga: Person, job: Any) -> dict[str, list[str]]:
    """Notes of the plan and whose they are: where a block means something else on one instance than on another."""
    plans = olga.get(f"jobs/{job['id']}/plan/")["instances"]
    whose: dict[str, list[str]] = {}
    for plan in plans:
        for note in plan["notes"]:
            whose.setdefault(note, []).append(plan["instance"])
    return {note: names for note, names in whose.items() if len(names) < len(plans)}


def _knock(lab: Lab, *, is_blocked: bool) -> None:
    """Not through the service: a stranger says MAIL FROM and RCPT to each host."""
    for name in HOSTS:
        order = Order(sender=SPAMMER, recipients=("r1@defer.test",), stop_at="rcpt")
        tried = lab.host(name).inject(order, source=OUTSIDER)
        if bool(tried.refused) is not is_blocked:
            raise Surprise(f"{name} {'still takes' if is_blocked else 'takes no'} mail of {SPAMMER}: {tried.errors}")
        tell("knock", f"{name}, asked by a stranger over SMTP: {(tried.errors or ['250, it takes the mail again'])[0]}")


def _purge(olga: Person, peter: Person) -> Any:
    job = olga.job("queue.purge", ACME, {"match": f"from:{SPAMMER}"}, "newsletter loop")
    job = expect(_approved(olga, peter, job), "succeeded", olga)
    for run in olga.runs(job):
        tell("purge", f"{run['instance']}: {_shortened(run['result'])}")
    return job


def _approved(olga: Person, peter: Person, job: Any) -> Any:
    if job["state"] != "awaiting_approval":
        return job
    plan = olga.get(f"jobs/{job['id']}/plan/")
    size = f"{job['plan']['messages']} messages, digest {job['plan']['digest'][:19]}"
    tell("plan", f"{job['operation']} needs approval ({job['approval']['rule']}): {size}")
    mine = olga.http.post(f"jobs/{job['id']}/approve/", json={"digest": plan["digest"], "comment": "me"})
    if mine.status_code != 403:
        raise Surprise("olga could approve her own request")
    peter.post(f"jobs/{job['id']}/approve/", {"digest": plan["digest"], "comment": "seen the plan"})
    tell("approval", "olga may not approve her own request; peter did")
    return olga.wait(job, frozenset(ENDED))


def _undo(olga: Person, done: Any) -> None:
    reason = {"reason": "show that it can be undone"}
    job = olga.wait(olga.post(f"jobs/{done['id']}/undo/", reason, Prefer="wait=30"))
    expect(job, "succeeded", olga)
    for run in olga.runs(job):
        tell("undo", f"{job['operation']}, {run['instance']}: {_shortened(run['result'])}")


def _deliver(olga: Person) -> None:
    """Exactly one message is attempted, and its SMTP dialogue comes back."""
    listed = olga.job("queue.list", {"hosts": ["ex1"]}, {"match": "from-domain:ok.test", "limit": 1})
    (run,) = olga.runs(expect(listed, "succeeded", olga))
    queue_id = run["result"]["entries"][0]["queue_id"]
    params = {"queue_id": queue_id, "verbose": True}
    job = olga.job("message.deliver", {"instances": [run["instance"]]}, params, "try this one now")
    (ran,) = olga.runs(expect(job, "succeeded", olga))
    for line in ran["result"]["dialogue"]:
        tell("dialogue", line)
    told = f"{ran['result']['outcome']}, the remote said {ran['result']['reply']}"
    tell("deliver", f"{queue_id} on {run['instance']}: {told}")


def _shortened(value: object) -> str:
    if isinstance(value, dict):
        value = {name: inner for name, inner in value.items() if not isinstance(inner, list | dict)}
    return json.dumps(value, ensure_ascii=False)[:200]


if __name__ == "__main__":
    sys.exit(main())
