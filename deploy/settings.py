"""Django settings, all from the environment (deploy/env.py names, checks and documents each)."""

from deploy.env import load

ENV = load()

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
AUTH_USER_MODEL = "jobs.Account"
DATABASES = {"default": ENV.database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "deploy.urls"
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
