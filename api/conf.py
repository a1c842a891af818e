"""The API's part of Django's settings; deploy/settings.py takes it over."""

from typing import Any

MIDDLEWARE = ["api.middleware.envelope"]

BODY_LIMIT = 256 * 1024
"""Bytes of a request's body."""

IMPORT = "/api/v1/hosts/import/"
IMPORT_LIMIT = 2 * 1024 * 1024
"""Bytes of a file of hosts, which that address takes."""

IMPORTS_AT_ONCE = 8
"""Such files in the memory of one process, whoever sends them."""

BODY_DEADLINE = 30
"""Seconds within which a request's body must have come."""

HEAD_LIMIT = 64 * 1024
"""Bytes of a request's line and headers."""

HEAD_DEADLINE = 10
"""Seconds within which these must have come: from connecting, or from the answer to the request before."""

CONNECTIONS = 2000
"""Connections of one process."""

STALL_LIMIT = 30
"""Seconds after which a client that does not take its answer is cut off."""

API_RATE = (500.0, 1000)
"""Requests per second and burst of one token, in each process; only against noise."""

SCAN_RATE = (0.2, 20)
"""The same of scan-host-key: a fleet of twenty at once, then one each five seconds."""

SCAN_MANY_RATE = (1 / 60, 4)
"""The same of scan-host-keys, each for 100 hosts at most: 400 at once, then 100 a minute."""

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["api.auth.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["api.auth.HasScope"],
    "DEFAULT_THROTTLE_CLASSES": ["api.throttle.TokenBucket"],
    "DEFAULT_PARSER_CLASSES": ["api.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "api.negotiation.AlwaysJson",
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "api.errors.handle",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}

SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "mxfleet",
    "DESCRIPTION": "Remote operations on fleets of mail servers: planned, approved, proven, undoable, audited.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "POSTPROCESSING_HOOKS": ["api.schema.document_operations"],
}
