"""Start the worker of one queue: `python -m deploy.worker ssh.0`, or of a shard that has none: `deploy.worker ssh`.

One process: the threads share the event loop and the warm SSH connections of their shard.
"""

import fcntl
import sys
import warnings
from typing import IO, Any

from celery import signals

from deploy import watchdog
from deploy.celery import ENV, app
from deploy.env import Env
from deploy.usage import Parser
from jobs.lanes import THREADS
from jobs.wakeup import CONTROL

EX_TEMPFAIL = 75
FREE = "ssh"
CONTROL_THREADS = 4
ANSWER = 5.0
"""Seconds within which the event loop of the SSH connections has to turn."""
_taken: list[IO[str]] = []
"""Kept open: the lock is the file's."""


def main(arguments: list[str]) -> int:
    parser = Parser("deploy.worker", __doc__)
    parser.add_argument("queue", help="such as ssh.0, ssh.SITE.0, ssh or control")
    asked = parser.parse_args(arguments).queue
    queue = free_queue(ENV) if asked == FREE else asked
    if not queue:
        print(f"mxfleet: each of the {ENV.shards} shards has a worker on this machine", file=sys.stderr)
        return EX_TEMPFAIL
    threads = CONTROL_THREADS if queue == CONTROL else THREADS
    # Celery warns of root because of pickle, which is not accepted here.
    warnings.filterwarnings("ignore", category=UserWarning, module="celery.platforms")
    renew_when_ready(queue, watchdog.start(queue, threads, ENV.redis_url))
    options = ["--pool", "threads", "--concurrency", str(threads), "--queues", queue]
    options += ["--hostname", f"{queue.replace('.', '-')}@%h"]
    app.start(["--quiet", "worker", *options, "--without-gossip", "--without-mingle", "--without-heartbeat"])
    return 0


def renew_when_ready(queue: str, watch: watchdog.Watch) -> None:
    """From when the worker is ready, say in the database that it lives: while it takes messages and its loop turns."""

    def begin(sender: Any, **_: Any) -> None:
        from deploy import worker_liveness
        from jobs.worker import runner

        worker_liveness.start(
            str(sender.hostname), queue, lambda: watch.takes() and runner.engine().answers(ANSWER), ENV.liveness_file
        )

    signals.worker_ready.connect(begin, weak=False)


def free_queue(env: Env) -> str:
    """The queue of the first shard that no process has taken in this data directory, ours until we end; "" for none."""
    directory = env.data / "shards"
    directory.mkdir(mode=0o700, exist_ok=True)
    for queue in env.ssh_queues:
        file = (directory / queue).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _taken.append(file)
        return queue
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
