"""An OpenSMTPD host on real files, for our own scripts, and a stand-in for smtpctl and the smtpd behind it.

An envelope's file is here the line that smtpctl shows of it.
"""

from pathlib import Path

from fleet.mta.records import InstanceFacts

SMTPCTL = """#!/bin/sh
PATH=/usr/bin:/bin
cd {spool}/queue || exit
case "$1 $2" in
'show queue') find . -type f -name '????????????????' -exec cat {{}} + ;;
'remove '*)
    for id in */"$2"; do rm -rf "$id"; done
    echo "1 envelope removed"
    ;;
esac
exit 0
"""


def add(spool: Path, queue_id: str) -> None:
    """A message with two recipients in the queue, whole."""
    home = spool / "queue" / queue_id[:2] / queue_id
    home.mkdir(parents=True, exist_ok=True)
    (home / "message").write_text(f"Subject: {queue_id}\n\nbody\n")
    for at in range(2):
        line = f"{queue_id}{at:08x}|inet4|mta||a@b.test|r@x.test|r@x.test|1795172609|1795172609|0|1|pending|9|451 x\n"
        (home / line[:16]).write_text(line)


def instance(spool: Path, program: Path) -> InstanceFacts:
    options = {"program": str(program), "log_source": "none"}
    return InstanceFacts("mx1", "opensmtpd", "opensmtpd", "7.6.0", "/etc", (str(spool),), ("smtpd",), options)
