"""Django's settings. What differs between installations comes from the environment (deploy/env.py)."""

from api import conf
from api.conf import *  # noqa: F403 - the API's part: MIDDLEWARE, REST_FRAMEWORK, SPECTACULAR_SETTINGS, its limits
from deploy.env import load
from deploy.logs import logging_config

ENV = load()
VERSION = "0.2.0"

DEBUG = False
SECRET_KEY = ENV.secret_key
ALLOWED_HOSTS = ENV.allowed_hosts
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "fleet",
    "jobs",
    "api",
]
# Last and not first: it is synchronous, and there it shares the thread of the synchronous views.
MIDDLEWARE = [*conf.MIDDLEWARE, "whitenoise.middleware.WhiteNoiseMiddleware"]
AUTH_USER_MODEL = "jobs.Account"
# Under ASGI each request has a thread of its own, so a connection kept open would be one lost; workers keep theirs
# (deploy/celery.py).
DATABASES = {"default": ENV.database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "deploy.urls"
TEMPLATES = [
    {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {}},
]
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
LOGGING = logging_config(ENV.log, has_access_log=ENV.has_access_log)
CELERY_APP = "deploy.celery.app"
