"""The trace that a request belongs to (W3C Trace Context), and the hooks of spans.py, which records traces.

Every request uses this module: it must not import Django or OpenTelemetry.
"""

import re
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from django.http import HttpRequest

    from wallets.observability.spans import Spans

# Version 00 ends after the flags; a later version may add fields behind another dash.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)(?!00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
_NOTHING: Final[AbstractContextManager[None]] = nullcontext()
recorder: "Spans | None" = None  # None unless OTEL_EXPORTER_OTLP_ENDPOINT is set


class Trace(NamedTuple):
    trace_id: str
    span_id: str  # the request's own
    is_sampled: bool


def trace_of(request: "HttpRequest") -> Trace:
    """Return the request's trace, made at the first call: most requests need none."""
    try:
        return request.trace  # type: ignore[attr-defined, no-any-return]
    except AttributeError:
        match = _TRACEPARENT.fullmatch(request.META.get("HTTP_TRACEPARENT", ""))
        trace = Trace(match[1] if match else secrets.token_hex(16), secrets.token_hex(8), False)
        request.trace = trace  # type: ignore[attr-defined]
        return trace


def response_header(trace: Trace) -> str:
    """Return `traceresponse`, a draft of Trace Context level 3: level 2 has no header for responses."""
    return f"00-{trace.trace_id}-{trace.span_id}-{'01' if trace.is_sampled else '00'}"


def current_span() -> Any:
    """Return the context of the current recorded span, or None."""
    return recorder.current_span() if recorder else None


def wait() -> AbstractContextManager[Any]:
    """Record the time that a request waits for its commit."""
    return recorder.open("wait for the commit") if recorder else _NOTHING


def batch(spans: Sequence[Any]) -> AbstractContextManager[Any]:
    """Record a transaction. `spans` has, for each of its calls, the result of `current_span` at the call."""
    return recorder.batch(spans) if recorder else _NOTHING


def stop() -> None:
    """Send the remaining spans, and record no more."""
    if recorder:
        recorder.stop()
