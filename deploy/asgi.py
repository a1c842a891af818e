"""The web process: Django under ASGI, so that event streams cost no thread."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")

from django.core.asgi import get_asgi_application
from django.db import connections

from api.limits import bounded
from deploy import celery

__all__ = ["application", "celery"]  # celery: imported now, so that the first ring of the doorbell need not wait for it

# Under ASGI each request runs in a thread of its own, so a connection kept by a thread would be made anew each time.
if connections.settings["default"]["ENGINE"].endswith("postgresql"):
    connections.settings["default"]["OPTIONS"]["pool"] = {"min_size": 2, "max_size": 20, "timeout": 10}

application = bounded(get_asgi_application())
