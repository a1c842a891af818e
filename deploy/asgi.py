"""The web process: Django under ASGI, so that event streams cost no thread."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deploy.settings")

from django.core.asgi import get_asgi_application

application = get_asgi_application()
