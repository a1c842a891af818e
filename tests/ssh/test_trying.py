"""Whether a host takes a credential is what a login says, and nothing else."""

from fleet.ssh.engine import Engine, Request
from jobs.worker.replacing import DEADLINE, log_in
from tests.ssh.sshd import Sshd


def test_a_real_login_decides(own_sshd: Sshd, engine: Engine) -> None:
    own_sshd.start()
    stranger = (own_sshd.directory / "host_ed25519").read_bytes()
    for key, is_taken in ((stranger, False), (own_sshd.endpoint().private_key, True)):
        request = Request("a", own_sshd.endpoint(private_key=key), log_in, False, DEADLINE)
        ((outcome,),) = engine.outcomes([request])
        assert (outcome.error is None) is is_taken
