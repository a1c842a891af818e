"""The toy MTA of tests/toy, by real files and its real scripts."""

from dataclasses import replace
from pathlib import Path

from fleet.mta.records import InstanceFacts
from fleet.mta.steps import Command, Completed
from tests.contract.play import Host
from tests.toy import Toy
from tests.unit.real_scripts import run_script

ABSENT_ID = "00000000"
SENDERS: dict[str, tuple[bytes, str] | str] = {
    "plain": (b"news@bulk.example", "news@bulk.example"),
    "non_utf8": (b"caf\xe9@bulk.example", "caf\\xE9@bulk.example"),
    "null": (b"", "<>"),
    "quote": (b'"a \\"b"@bulk.example', '"a \\"b"@bulk.example'),
    "newline": "a sender is a line of the file, so none is queued with a newline",
}
STATES = {"": "deferred", ".held": "hold", ".busy": "active"}


def find(command: Command) -> Completed:
    """What quarantine_find.sh would say if it had a line for the toy: the one of Postfix."""
    return run_script(replace(command, argv=("postfix", *command.argv[1:])))


def host(directory: Path, senders: list[bytes]) -> Host:
    """A host with one message of each sender."""
    queue = directory / "queue"
    queue.mkdir()
    for number, sender in enumerate(senders):
        (queue / f"A000000{number}").write_bytes(sender + b"\nr@defer.test s@defer.test\nSubject: x\n\nbody\n")

    def queued() -> dict[str, str]:
        return {path.name[:8]: STATES[path.name[8:]] for path in queue.iterdir() if path.is_file()}

    return Host(
        adapter=Toy(),
        instance=InstanceFacts("toy1", "toy", "toy", "1", "/etc/toy", (str(queue),), options={"own_domains": []}),
        directory=directory,
        answers={"toy_list.sh": run_script, "toy_change.sh": run_script, "quarantine_find.sh": find},
        queued=queued,
        judge=lambda sender: "",
        block_by_hand=lambda sender: None,
    )
