"""Our own scripts on this machine, as the transport sends them.

`RUN`: a directory in the place of /run for the fence, locks and states; a test that gives fences, or that must not wait
for other tests of this machine, puts one of its own here.
"""

import os
import shutil
import subprocess
from pathlib import Path

from fleet.mta.steps import Command, Completed
from fleet.ssh.quoting import script_text, stdin_of

RUN = "/run"
AWKS = [name for name in ("mawk", "gawk", "original-awk", "busybox") if shutil.which(name)]
"""The awks that this machine has."""


def tools_with(root: Path, awk: str) -> Path:
    """A directory of programs in which awk(1) is this one."""
    tools = root / "tools"
    tools.mkdir()
    (tools / "awk").write_text(f'#!/bin/sh\nexec {awk.replace("busybox", "busybox awk")} "$@"\n')
    (tools / "awk").chmod(0o755)
    return tools


def text_of(name: str, tools: Path | None = None) -> str:
    """The script as it travels. `tools`: a directory of programs that come before those in the script's own PATH.

    Whether systemd runs depends on the machine otherwise: here it does where `tools` has a directory of that name.
    """
    text = script_text(name)[0].replace("/run/mxfleet-", f"{RUN}/mxfleet-")
    text = text.replace("[ -w /run ]", f"[ -w {RUN} ]")
    text = text.replace("/run/systemd/system", f"{tools or '/nonexistent'}/systemd")
    return text.replace("\nPATH=/usr/", f"\nPATH={tools}:/usr/") if tools else text


def argv_of(command: Command, tools: Path | None = None) -> list[str]:
    """The command line as the transport makes it."""
    assert command.script is not None
    return ["/bin/sh", "-c", text_of(command.script, tools), command.script, *command.argv]


def run_script(command: Command, tools: Path | None = None) -> Completed:
    """What the script says. `tools`: a directory of programs that come before the machine's own."""
    path = os.environ["PATH"]
    environment = {**os.environ, "PATH": f"{tools}:{path}" if tools else path}
    done = subprocess.run(
        argv_of(command, tools), input=stdin_of(command), capture_output=True, timeout=60, env=environment, check=False
    )
    return Completed(done.returncode, done.stdout, done.stderr)
