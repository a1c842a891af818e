"""The web process: Django under ASGI, so that event streams cost no thread."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")

from django.core.asgi import get_asgi_application

from api.limits import bounded
from deploy import celery

__all__ = ["application", "celery"]  # celery: imported now, so that the first ring of the doorbell need not wait for it

application = bounded(get_asgi_application())
