"""The Celery app: wakeups, not the truth. Each message only says "look at your queue"; the database decides.

Where a value differs from Celery's default the reason stands beside it. The workers run `-P threads`, which has no
`task_time_limit`: a thread cannot be killed, so deadlines are those of each command and of each run.
"""

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")

from celery import Celery, signals
from django.conf import settings

from deploy import broker, logs
from jobs.wakeup import CONTROL

ENV = settings.ENV

broker.install()
app = Celery("mxfleet")
app.set_default()
app.conf.update(
    broker_url=ENV.broker_url,
    broker_transport_options={
        # A worker that dies takes nothing with it (early acknowledgement), but its unread message must come back soon.
        "visibility_timeout": 600,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # Without a timeout a hung Redis hangs its clients for ever.
        "socket_timeout": 10,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 25,
    },
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # the default gives up after 100
    broker_channel_error_retry=True,
    accept_content=["json"],  # whoever can write to Redis must not be able to send pickles
    task_serializer="json",
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    result_backend=None,
    # Early: with late acknowledgement a long task was started three times. The sweep sends a lost message again.
    task_acks_late=False,
    task_reject_on_worker_lost=False,  # True loops on a task that kills its worker
    task_acks_on_failure=True,
    task_acks_on_timeout=True,
    task_publish_retry=False,  # the sweep is the retry
    task_default_queue=CONTROL,
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    # Becomes True in Celery 6 and would turn known outcomes into unknown ones.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_soft_shutdown_timeout=120,
    worker_enable_remote_control=False,  # whoever can write to Redis must not steer workers
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    enable_utc=True,
    timezone="UTC",
    beat_schedule_filename=str(ENV.data / "beat-schedule"),
    beat_schedule={
        "sweep": {
            "task": "jobs.tasks.sweep",
            "schedule": 2.0,
            "options": {"queue": CONTROL, "expires": 2},
        },
        "housekeep": {
            "task": "jobs.tasks.housekeep",
            "schedule": 60.0,
            "options": {"queue": CONTROL, "expires": 60},
        },
        "forget answers": {
            "task": "api.tasks.forget_answers",
            "schedule": 60.0,
            "options": {"queue": CONTROL, "expires": 60},
        },
    },
)
app.autodiscover_tasks(["api", "jobs"])


@signals.setup_logging.connect
def _keep_our_logging(**_: Any) -> None:
    logs.apply(ENV.log)


@signals.worker_init.connect
def _keep_connections(sender: Any, **_: Any) -> None:
    """Celery closes a thread's connection after every task: with a pool that only hands it back."""
    from deploy.pool import keep_connections

    keep_connections(sender.concurrency)
