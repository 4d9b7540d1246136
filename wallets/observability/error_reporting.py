"""Faults of ours, reported to SENTRY_DSN: Sentry, or what speaks its protocol. Imported where that is set.

What is logged as an error is reported; a refusal is an answer. Of an event all is left out but what is named
here: so there are no bodies, headers, addresses, people or local variables in it.
"""

import logging
from typing import Any, Final

import sentry_sdk
from django.conf import settings
from sentry_sdk.integrations.atexit import AtexitIntegration
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.excepthook import ExcepthookIntegration
from sentry_sdk.integrations.logging import LoggingIntegration, ignore_logger
from sentry_sdk.types import Event, Hint

from wallets.observability import logs, request_context
from wallets.observability.traces import trace_of

TOLD: Final = frozenset(
    ("event_id", "timestamp", "level", "logger", "platform", "environment", "server_name", "sdk", "exception")
)
WITHOUT_CAUSE: Final = "django.request"  # says again that an answer was a 500


def start() -> None:
    ignore_logger("opentelemetry.*")  # a collector that is away is said once a batch
    sentry_sdk.init(
        dsn=settings.SENTRY_DSN,
        environment=settings.SENTRY_ENVIRONMENT,
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            LoggingIntegration(level=None, event_level=logging.ERROR),
            ExcepthookIntegration(),
            DedupeIntegration(),
            AtexitIntegration(callback=lambda _pending, _timeout: None),
        ],
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        send_default_pii=False,
        before_send=_told,
        # Brotli, which it takes where it is installed, not all can read.
        _experiments={"transport_compression_algo": "gzip"},  # type: ignore[typeddict-item]
    )


def _told(event: Event, hint: Hint) -> Event | None:
    record = hint.get("log_record")
    if record is not None and record.name == WITHOUT_CAUSE and not record.exc_info:
        return None
    told: Any = {name: value for name, value in event.items() if name in TOLD}
    for error in told.get("exception", {}).get("values", ()):
        error["value"] = logs.what_is_told(error.get("module"), error["type"], error.get("value") or "")
    if record is not None:
        told["logentry"] = {"message": logs.message_of(record)}
    told["tags"] = _tags()
    return told  # type: ignore[no-any-return]


def _tags() -> dict[str, str]:
    request = request_context.request.get()
    if request is None:
        return {}
    return {
        "request_id": request.id,  # type: ignore[attr-defined]
        "trace_id": trace_of(request).trace_id,
        "route": request_context.route_of(request),
    }
