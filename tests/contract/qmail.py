"""qmail, by a real queue on disk and our real scripts, with stand-ins for svc and svstat and badmailfrom in memory."""

from dataclasses import replace
from pathlib import Path

from fleet.mta.blocks.listfile import fold
from fleet.mta.qmail import Qmail
from fleet.mta.steps import Command, Completed
from tests.contract.play import HOST_ADDRESS, Host
from tests.unit.list_host import ListHost
from tests.unit.qmail_host import QmailHost

ABSENT_ID = "999999999"
SENDERS: dict[str, tuple[bytes, str] | str] = {
    "plain": (b"news@bulk.example", "news@bulk.example"),
    "non_utf8": (b"caf\xe9@bulk.example", "caf\\xE9@bulk.example"),
    "null": (b"", "<>"),
    "quote": (b'a "b@bulk.example', '"a \\"b"@bulk.example'),
    "newline": (b"a\nb@bulk.example", '"a\nb"@bulk.example'),
}
STAMP = "@400000006b0107a20aba9500"
CONTROL = b"file me\nline qm1.test\nend\n"
REPLY = "553 5.1.0 Sorry, your envelope sender is in my badmailfrom list."


def judge(host: ListHost, sender: str) -> str:
    plain = fold(sender.replace('"', ""))
    return REPLY if {plain, "@" + plain.rpartition("@")[2]} & host.in_effect().keys() else ""


def host(directory: Path, senders: list[bytes]) -> Host:
    """A host with one message of each sender, waiting for its next attempt."""
    fake, badmailfrom = QmailHost(directory / "host"), ListHost(judge, None, refused_at_mail=True)
    for sender in senders:
        fake.put(sender)
    log = directory / "log"
    log.mkdir()
    (log / "current").touch()
    options = {
        **fake.instance.options,
        "home": "/var/qmail",
        "own_domains": ["qm1.test"],
        "listen": [[HOST_ADDRESS, 25]],
        "log_source": str(log),
    }
    instance = replace(fake.instance, config_dir="/var/qmail/control", front_ends=("smtpfront-qmail",), options=options)
    names = ("qmail_list.sh", "qmail_content.sh")
    actions: list[str] = []

    def change(command: Command) -> Completed:
        actions.append(" ".join(command.argv))
        return fake.run(command)

    def watch(command: Command) -> Completed:
        """qmail-send's log after the attempt: expired messages are returned, others deferred."""
        lines = []
        for number, name in enumerate(line.split()[0] for line in command.stdin.decode().splitlines()[1:]):
            lines += [
                f"{STAMP} starting delivery {number}: msg {name} to remote r@defer.test",
                f"{STAMP} delivery {number}: deferral: 451_later/",
            ]
            if "bounce" in actions[-1]:
                lines += [f"{STAMP} bounce msg {name} qp 7", f"{STAMP} end msg {name}"]
                for kind in ("info", "remote", "mess"):
                    fake.path(kind, name).unlink()
        return Completed(0, "\n".join([*lines, "end", ""]).encode())

    return Host(
        adapter=Qmail(),
        instance=instance,
        directory=directory,
        answers=dict.fromkeys(names, fake.run)
        | {"qmail_change.sh": change, "qmail_watch.sh": watch}
        | {"block_file.sh": badmailfrom._answer, "qmail_control.sh": lambda command: Completed(0, CONTROL)},
        queued=lambda: {path.name: "deferred" for path in fake.queue.glob("info/*/*")},
        judge=lambda sender: judge(badmailfrom, sender),
        block_by_hand=badmailfrom.append,
        close=fake.remove_state,
    )
