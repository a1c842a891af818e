"""OpenSMTPD, by a real queue directory and our real scripts, with a stand-in for smtpctl and smtpd.conf in memory."""

from functools import partial
from pathlib import Path

from fleet.mta.opensmtpd import OpenSmtpd
from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Completed
from tests.contract.play import HOST_ADDRESS, Host, make_program
from tests.unit.opensmtpd_host import Smtpd, looked_up
from tests.unit.real_scripts import run_script

ABSENT_ID = "0123abcd"
SENDERS: dict[str, tuple[bytes, str] | str] = {
    "plain": (b"news@bulk.example", "news@bulk.example"),
    "non_utf8": "smtpd answers `553 Sender address syntax error` to 8-bit addresses, from local programs too",
    "null": (b"", "<>"),
    "quote": "smtpd answers `553 Sender address syntax error` to quoted local parts, from local programs too",
    "newline": "smtpd answers `553 Sender address syntax error` to control characters, from local programs too",
}
SMTPCTL = """#!/bin/sh
# The commands that our scripts use, with smtpctl's own words, on the queue beside it. Attempts are deferred and logged.
here=${0%/*}
queue=$here/spool/queue

read_envelope() { # FILE
    while IFS= read -r line; do
        case $line in
        'sender: '*) sender=${line#*: } ;;
        'rcpt: '*) rcpt=${line#*: } ;;
        'ctime: '*) created=${line#*: } ;;
        'errorline: '*) reason=${line#*: } ;;
        esac
    done <"$1"
}

act() { # COMMAND FILE: what it does with one envelope; fails where there is nothing to do
    paused=$here/paused/${2##*/}
    case $1 in
    show)
        read_envelope "$2"
        flags=
        [ ! -e "$paused" ] || flags=suspend
        printf '%s|inet4|mta|%s|%s|%s|%s|%s|%s|0|1|pending|390|%s\\n' \\
            "${2##*/}" "$flags" "$sender" "$rcpt" "$rcpt" "$created" "$created" "$reason"
        ;;
    pause) [ ! -e "$paused" ] && : >"$paused" ;;
    resume) [ -e "$paused" ] && rm "$paused" ;;
    schedule)
        read_envelope "$2"
        printf '%s os1 smtpd[1]: 7ca5e6d0cf8a4b4f mta delivery evpid=%s from=<%s> to=<%s> rcpt=<-> %s\\n' \\
            2026-11-21T12:00:00+00:00 "${2##*/}" "$sender" "$rcpt" \\
            'source="192.0.2.9" relay="192.0.2.7 (mx)" delay=1s result="TempFail" stat="451 later"' >>"$here/mail.log"
        ;;
    remove) rm -f "$2" "$paused" ;;
    esac
}

command=$1
case $1 in
show)
    case $2 in status) echo 'MTA running' && exit ;; esac
    target=${3-}
    ;;
pause | resume) target=$3 ;;
*) target=$2 ;;
esac
count=0
for file in "$queue"/*/*/*; do
    case ${file##*/} in
    message | '*') continue ;;
    "$target"*) act "$command" "$file" && count=$((count + 1)) ;;
    esac
    [ "$command" != remove ] || rmdir "${file%/*}" 2>/dev/null
done
case $command in
show) ;;
discover) echo "$count envelope discovered" ;;
*) echo "$count envelope ${command%e}ed" ;;
esac
"""
ENVELOPE = """version: 3
dispatcher: "out"
type: mta
sender: {sender}
rcpt: {recipient}
dest: {recipient}
ctime: {created}
errorline: 451 later
"""
CONFIG = """listen on eth0
table aliases file:{aliases}
action "local" mbox alias <aliases>
action "out" relay
match from any for domain "os1.test" action "local"
match from any for domain "ok.test" action "out"
match for any action "out"
"""
HIS_RULE = "table blocked file:/etc/smtpd/blocked\nmatch from any mail-from <blocked> for any reject\n"


def put(queue: Path, number: int, sender: bytes) -> None:
    """A message to two."""
    queue_id = f"{number}7e3a5b1"
    at = queue / queue_id[:2] / queue_id
    at.mkdir(parents=True)
    (at / "message").write_bytes(b"Subject: Newsletter 1\n\nbody\n")
    for name, recipient in (("0f3c5d12", "r@defer.test"), ("9a3c5d17", "s@defer.test")):
        text = ENVELOPE.format(sender=sender.decode() or "@", recipient=recipient, created=1_795_172_609 + number)
        (at / f"{queue_id}{name}").write_text(text)


def host(directory: Path, senders: list[bytes]) -> Host:
    """A host with one message of each sender."""
    queue = directory / "spool/queue"
    queue.mkdir(parents=True)
    (directory / "paused").mkdir()
    make_program(directory / "smtpctl", SMTPCTL)
    (directory / "mail.log").touch()
    (directory / "aliases").write_text("root: admin\n")
    for number, sender in enumerate(senders):
        put(queue, number, sender)
    config = CONFIG.format(aliases=directory / "aliases")
    smtpd = Smtpd(looked_up, config=config, loaded=config)
    options = {
        "program": f"{directory}/smtpctl",
        "smtpd": "/usr/sbin/smtpd",
        "config_file": "/etc/smtpd.conf",
        "own_domains": ["os1.test"],
        "open_domains": ["os1.test", "ok.test"],
        "listen": [[HOST_ADDRESS, 25]],
        "log_source": f"{directory}/mail.log",
    }

    def discover(command: Command) -> Completed:
        lines = ["version 7.6.0", "mailname os1.test", *(f"conf {line}" for line in smtpd.config.splitlines())]
        return Completed(0, "\n".join([*lines, "end", ""]).encode())

    def queued() -> dict[str, str]:
        paused = {path.name[:8] for path in (directory / "paused").iterdir()}
        found = (path.parent.name for path in queue.glob("*/*/message"))
        return {name: "hold" if name in paused else "deferred" for name in found}

    def block_by_hand(address: str) -> None:
        smtpd.config = smtpd.loaded = HIS_RULE + config
        smtpd.append(address)

    scripts = ("list", "content", "act", "quarantine", "deliver", "log", "tables")
    return Host(
        adapter=OpenSmtpd(),
        instance=InstanceFacts(
            "os1", "opensmtpd", "opensmtpd", "7.6.0", "/etc", (str(queue.parent),), ("smtpd",), options=options
        ),
        directory=directory,
        answers={f"opensmtpd_{name}.sh": partial(run_script, tools=directory) for name in scripts}
        | {"opensmtpd_discover.sh": discover}
        | dict.fromkeys(("block_file.sh", "opensmtpd_wire.sh"), smtpd._answer),
        queued=queued,
        judge=lambda sender: looked_up(smtpd, sender),
        block_by_hand=block_by_hand,
    )
