"""Report errors to SENTRY_DSN: Sentry, or a server with its protocol. Imported only if SENTRY_DSN is set.

Log records of level ERROR are reported; refused requests are not errors. A report has only the fields that
are listed here, so it contains no bodies, headers, addresses, user data or local variables.
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

REPORTED_FIELDS: Final = frozenset(
    ("event_id", "timestamp", "level", "logger", "platform", "environment", "server_name", "sdk", "exception")
)
DUPLICATE_LOGGER: Final = "django.request"  # also logs each 500 without its exception: a duplicate


def start() -> None:
    ignore_logger("opentelemetry.*")  # logs an unreachable collector once per batch
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
        before_send=_filter,
        # Not Brotli, which the SDK prefers if it is installed: not every server can read it.
        _experiments={"transport_compression_algo": "gzip"},  # type: ignore[typeddict-item]
    )


def _filter(event: Event, hint: Hint) -> Event | None:
    record = hint.get("log_record")
    if record is not None and record.name == DUPLICATE_LOGGER and not record.exc_info:
        return None
    report: Any = {name: value for name, value in event.items() if name in REPORTED_FIELDS}
    for error in report.get("exception", {}).get("values", ()):
        error["value"] = logs.safe_message(error.get("module"), error["type"], error.get("value") or "")
    if record is not None:
        report["logentry"] = {"message": logs.message_of(record)}
    report["tags"] = _tags()
    return report  # type: ignore[no-any-return]


def _tags() -> dict[str, str]:
    request = request_context.request.get()
    if request is None:
        return {}
    return {
        "request_id": request.id,  # type: ignore[attr-defined]
        "trace_id": trace_of(request).trace_id,
        "route": request_context.route_of(request),
    }
