"""Start the worker of one queue: `python -m deploy.worker ssh.0`.

One process: the threads share the event loop and the warm SSH connections of their shard.
"""

import sys
import warnings

from deploy import watchdog
from deploy.celery import CONTROL, ENV, app
from jobs.lanes import THREADS

EX_USAGE = 64
CONTROL_THREADS = 4


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m deploy.worker QUEUE, such as ssh.0, ssh.SITE.0 or control", file=sys.stderr)
        return EX_USAGE
    (queue,) = arguments
    threads = CONTROL_THREADS if queue == CONTROL else THREADS
    # Celery warns of root because of pickle, which is not accepted here.
    warnings.filterwarnings("ignore", category=UserWarning, module="celery.platforms")
    watchdog.start(queue, threads, ENV.redis_url)
    options = ["--pool", "threads", "--concurrency", str(threads), "--queues", queue]
    options += ["--hostname", f"{queue.replace('.', '-')}@%h"]
    app.start(["--quiet", "worker", *options, "--without-gossip", "--without-mingle", "--without-heartbeat"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
