"""The service's settings, changed to those of a plain Django REST Framework project."""

from walletsvc.settings import *  # noqa: F403
from walletsvc.settings import DATABASES

ROOT_URLCONF = "loadtest.naive.urls"
WSGI_APPLICATION = "loadtest.naive.wsgi.application"

# A permanent connection for each thread: faster than Django's pool, and much faster than its default.
_OPTIONS = {"application_name": "naive", "options": "-c synchronous_commit=on"}
_PERSISTENT = {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False, "OPTIONS": _OPTIONS}
DATABASES = {"default": DATABASES["default"] | _PERSISTENT}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "UNAUTHENTICATED_USER": None,
}
