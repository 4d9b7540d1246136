"""The WSGI entry point: `gunicorn -c walletsvc/gunicorn.py walletsvc.wsgi`."""

import os
import sys
from importlib import import_module
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "walletsvc.settings")

# DRF imports `requests` if it is installed, for its test client: 4 MB in each worker. Only spans.py needs it.
if "requests" not in sys.modules:
    sys.modules["requests"] = None  # type: ignore[assignment]
    import_module("rest_framework.compat")
    del sys.modules["requests"]


class Utf8Request(WSGIRequest):
    """Decodes all texts as UTF-8 and ignores the charset that the client names: some charsets would fail."""

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))


class Handler(WSGIHandler):
    request_class = Utf8Request


django.setup(set_prefix=False)
application = Handler()
