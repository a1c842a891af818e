"""A small Postfix for the hosts of the fault rounds: its programs by their names, one file, the standard library only.

The queue is a directory, a message is a file: one line of JSON (sender, recipients, arrival time), then the message.
Slow on purpose (`pause`: seconds per message), so that cuts hit the middle of a change. Like Postfix's own programs it
goes on when nobody reads what it says any more. Every effect is on `effects`, on disk, before the next one begins.
"""

import os
import sys
import time
from collections.abc import Callable

# No pathlib, and json only where it is needed: a change is dozens of programs, so what each start costs counts.
HOST = "/run/mta"  # a link to this host's own directory, in the host's own mount namespace
CONFIG = f"{HOST}/etc/postfix"
SPOOL = f"{HOST}/spool"
QUEUES = ("active", "incoming", "deferred", "hold")  # showq(8) scans in an order, too: what moves may escape a listing
MOVES = {
    "-h": ("hold", "placed on hold", "Placed on hold"),
    "-H": ("deferred", "released from hold", "Released from hold"),
    "-d": ("", "removed", "Deleted"),
}
DEFAULTS = {
    "mail_version": "3.7.11",
    "command_directory": "/usr/sbin",
    "config_directory": CONFIG,
    "queue_directory": SPOOL,
    "multi_instance_directories": "",
    "enable_long_queue_ids": "no",
    "hash_queue_names": "deferred",
    "syslog_name": "postfix",
    "authorized_mailq_users": "static:anyone",
    "authorized_flush_users": "static:anyone",
    "inet_interfaces": "127.0.0.1",
    "myhostname": "mx.test",
    "mydestination": "mx.test",
    "smtputf8_enable": "yes",
    "smtpd_null_access_lookup_key": "<>",
    "default_database_type": "hash",
    "smtpd_sender_restrictions": f"check_sender_access hash:{CONFIG}/senders",
}


def effect(what: str, queue_id: str, job: str = "") -> None:
    """Put on record what was done, and only then go on."""
    row = f'{{"what": "{what}", "id": "{queue_id}", "job": "{job}", "at": {time.time()}, "pid": {os.getpid()}}}\n'
    file = os.open(f"{HOST}/effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, row.encode())
    os.fsync(file)
    os.close(file)


def say(text: str, stream: int = 1) -> None:
    try:
        os.write(stream, text.encode())
    except OSError:
        return  # nobody listens any more; the work goes on


def slow() -> None:
    time.sleep(float(read(f"{HOST}/pause")))


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def messages() -> list[dict[str, object]]:
    """What postqueue -j would print, one dict for each message; what moves meanwhile may be missing, as there."""
    import json

    rows = []
    for queue in QUEUES:
        for name in sorted(os.listdir(f"{SPOOL}/{queue}")):
            try:
                data = read(f"{SPOOL}/{queue}/{name}")
            except FileNotFoundError:
                continue
            head = json.loads(data.split("\n", 1)[0])
            rows.append(
                {
                    "queue_name": queue,
                    "queue_id": name,
                    "arrival_time": head["arrival_time"],
                    "message_size": len(data),
                    "forced_expire": False,
                    "sender": head["sender"],
                    "recipients": [{"address": each, "delay_reason": "later"} for each in head["recipients"]],
                }
            )
    return rows


def postqueue(arguments: list[str]) -> int:
    if "-j" in arguments:
        import json

        say("".join(json.dumps(row) + "\n" for row in messages()))
    elif "-p" in arguments:
        count = len(messages())
        say(f"-- {count} Kbytes in {count} Requests.\n" if count else "Mail queue is empty\n")
    elif "-i" in arguments:
        effect("attempt", arguments[-1])
    return 0


def postsuper(arguments: list[str]) -> int:
    """`-c DIRECTORY FLAG - QUEUE`, queue IDs on stdin; each by one rename(2) out of that queue, as postsuper(1)."""
    flag, queue = arguments[2], arguments[4]
    target, verb, counted = MOVES[flag]
    names = sys.stdin.read().split()
    done = 0
    for name in names:
        slow()
        try:
            if target:
                os.rename(f"{SPOOL}/{queue}/{name}", f"{SPOOL}/{target}/{name}")
            else:
                os.unlink(f"{SPOOL}/{queue}/{name}")
        except FileNotFoundError:
            continue
        effect(verb.split()[0], name)
        done += 1
        say(f"postsuper: {name}: {verb}\n", 2)
    say(f"postsuper: {counted}: {done} messages\n", 2)
    return 0


def mv(arguments: list[str]) -> int:
    """The move of queue files into our quarantine and back, slow and on record; everything else is the real mv's."""
    here = os.getcwd()
    if arguments[:2] != ["-n", "-t"] or "/mxfleet-quarantine/" not in here:
        os.execv("/usr/bin/mv", ["mv", *arguments])
    target = arguments[2]
    for path in arguments[4:]:
        slow()
        name = os.path.basename(path)
        if os.path.lexists(f"{target}/{name}"):
            continue
        try:
            os.rename(path, f"{target}/{name}")
        except FileNotFoundError:
            continue
        effect("out" if target == "." else "back", name, os.path.basename(here))
    return 0


def settings() -> dict[str, str]:
    pairs = (line.partition("=") for line in read(f"{CONFIG}/main.cf").splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}


def postconf(arguments: list[str]) -> int:
    flags = "".join(word[1:] for word in arguments if word.startswith("-"))
    words = [word for word in arguments if not word.startswith("-")]
    names = words[1:] if "-c" in arguments else words
    if "M" in flags:
        say(read(f"{CONFIG}/master.cf"))
    elif "m" in flags:
        say("hash\n")
    elif "P" not in flags:
        found = settings() if "n" in flags else DEFAULTS | settings()
        for name in names or list(found):
            say(f"{found.get(name, '')}\n" if "h" in flags else f"{name} = {found.get(name, '')}\n")
    return 0


def postmap(arguments: list[str]) -> int:
    """`hash:FILE` builds FILE.db, `-q KEY` and `-s` read it."""
    path = arguments[-1].partition(":")[2]
    built = f"{path}.db"
    if "-q" not in arguments and "-s" not in arguments:
        effect("postmap", os.path.basename(path))
        slow()
        lines = [line.split(None, 1) for line in read(path).splitlines() if line and not line.startswith("#")]
        with open(built, "w", encoding="utf-8") as file:
            file.write("".join(f"{key}\t{value}\n" for key, value in lines))
        return 0
    if "-s" in arguments:
        say(read(built))
        return 0
    value = value_in(read(built), arguments[arguments.index("-q") + 1])
    say(f"{value}\n" if value else "")
    return 0 if value else 1


def value_in(built: str, key: str) -> str:
    """What a built map gives for a key, or ""."""
    return dict(line.split("\t", 1) for line in built.splitlines()).get(key, "")


PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "postqueue": postqueue,
    "postsuper": postsuper,
    "postconf": postconf,
    "postmap": postmap,
    "mv": mv,
}


def main() -> int:
    return PROGRAMS[os.path.basename(sys.argv[0])](sys.argv[1:])
