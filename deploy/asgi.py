"""The web process: Django under ASGI, so that event streams cost no thread."""

import os
from typing import cast

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")

from django.conf import settings
from django.core.asgi import get_asgi_application

from api.access import App, logged
from api.held import held
from api.hub import QUERY_THREADS, Hub
from api.limits import bounded
from api.turns import Turns, in_turns
from deploy import celery
from deploy.pool import keep_connections
from deploy.proxies import behind_proxies

__all__ = ["application", "celery"]  # celery: imported now, so that the first wakeup need not wait for it

# Each request runs in a thread of its own, so a connection kept by a thread would be made anew each time.
REQUESTS = 18  # that are at work at the same moment; half of them of one caller
WAITERS = 2  # the same for those that will wait: few, so that a burst of them leaves others the processor
LONG = 4  # the same for what takes seconds: it asks a host, or follows the whole audit trail
keep_connections(REQUESTS + WAITERS + LONG + QUERY_THREADS)
hub = Hub()
turns = Turns(REQUESTS, REQUESTS // 2), Turns(WAITERS, WAITERS), Turns(LONG, LONG // 2)
application = behind_proxies(
    logged(bounded(held(in_turns(cast(App, get_asgi_application()), *turns), hub))), settings.ENV.trusted_proxies
)
