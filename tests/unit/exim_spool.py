"""An Exim host on real spool files, for our own scripts, and a stand-in for exim that moves and removes as Exim does.

Exim moves a message by links, message log first and -H last, and then removes the old names, -H first
(spool_move_message); -Mrm removes the message log, -D and -H (queue_action).
"""

from pathlib import Path

from fleet.mta.records import InstanceFacts

EXIM = """#!/bin/sh
PATH={tools}:/usr/bin:/bin
cd {spool} || exit
queue=
case $1 in -qG*) queue=${{1#-qG}}; shift ;; esac
step() {{
    "$@" 2>/dev/null
    status=$?
    [ $status -lt 126 ] || kill -KILL $$
    return $status
}}
move() {{ # FROM TO ID
    for part in input msglog; do step mkdir -p "./$2/$part" || return; done
    for name in "msglog/$3" "input/$3-D" "input/$3-H"; do step ln "./$1/$name" "./$2/$name" || return; done
    for name in "input/$3-H" "input/$3-D" "msglog/$3"; do step rm "./$1/$name" || return; done
}}
remove() {{
    for name in "msglog/$1" "input/$1-D" "input/$1-H"; do step rm -f "./$queue/$name" || return; done
    echo "Message $1 has been removed"
}}
case $1 in
-MG) to=$2; shift 2; for id; do move "$queue" "$to" "$id"; done ;;
-Mrm) shift; for id; do remove "$id"; done ;;
esac
"""


def header_file(queue_id: str) -> str:
    lines = (
        f"{queue_id}-H",
        "exim 100 102",
        "<a@b.test>",
        "1795172826 0",
        "-received_time_usec .1",
        "XX",
        "1",
        "r@x.test",
    )
    return "\n".join((*lines, "", "008  Subj: x\n"))


def add(spool: Path, queue_id: str) -> None:
    """A message in the main queue, whole."""
    for name in ("input", "msglog"):
        (spool / name).mkdir(parents=True, exist_ok=True)
    (spool / f"msglog/{queue_id}").write_text("2026-11-20 10:27:06 Received from a@b.test\n")
    (spool / f"input/{queue_id}-D").write_text(f"{queue_id}-D\nbody\n")
    (spool / f"input/{queue_id}-H").write_text(header_file(queue_id))


def instance(spool: Path, program: Path) -> InstanceFacts:
    options = {"program": str(program), "spool": str(spool), "log_source": "none"}
    return InstanceFacts("ex2", "exim", "exim", "4.98", "/etc/exim4", (str(spool),), options=options)
