"""Programs say what they do when they are asked, and start nothing then."""

import subprocess
import sys

import pytest

from deploy.usage import EX_USAGE, Parser
from tests.architecture.test_layers import ROOT, named, sources

PROGRAMS = [
    named(path).removesuffix(".py").replace("/", ".")
    for path in sorted(sources("deploy", "jobs"))
    if '\nif __name__ == "__main__":\n' in path.read_text()
]


@pytest.mark.parametrize("module", PROGRAMS)
def test_a_program_that_is_asked_for_help_tells_its_use_and_starts_nothing(module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    first, _, rest = done.stdout.partition("\n")
    assert first.startswith("usage: ")
    assert module.rpartition(".")[2] in first
    assert len(rest) > 100


@pytest.mark.parametrize("arguments", [["--port", "8001"], ["now"]])
def test_what_a_program_does_not_take_is_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        Parser("deploy.serve", "Serves.").parse_args(arguments)
    assert end.value.code == EX_USAGE
    assert capsys.readouterr().err.startswith("usage: python -m deploy.serve ")
