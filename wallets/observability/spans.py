"""OpenTelemetry: what takes its time, sent to OTEL_EXPORTER_OTLP_ENDPOINT. Imported where that is set.

OpenTelemetry's own variables are read by its SDK: OTEL_TRACES_SAMPLER, OTEL_BSP_…, and so on.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import gevent
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from wallets.observability import traces
from wallets.observability.current import PROBES, route_of, wallet_of
from wallets.observability.traces import Asked, Trace

MOST_LINKS: Final = 100  # requests that the span of a batch names
LAST_WORDS: Final = 3.0  # seconds that a worker takes at its end to send its spans


class Recorder:
    """Makes the spans. One in a process, made after the server's fork: its thread would not survive that."""

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        for name in [name for name, value in os.environ.items() if name.startswith("OTEL_") and not value]:
            del os.environ[name]  # empty is the default, which the SDK does not know of all of them
        resource = Resource.create(
            {
                "service.name": settings.OTEL_SERVICE_NAME,
                "service.instance.id": f"{os.uname().nodename}:{os.getpid()}",
            }
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("walletsvc")

    def serve(self, request: HttpRequest) -> Span:
        return self._tracer.start_span(
            f"{request.method}",
            _parent(request),
            SpanKind.SERVER,
            {"http.request.method": f"{request.method}", "walletsvc.request_id": request.id},  # type: ignore[attr-defined]
        )

    def wait(self) -> AbstractContextManager[Any]:
        return self._open("wait for the commit")

    def batch(self, tickets: Sequence[Asked]) -> AbstractContextManager[Any]:
        """In the trace of the first request that is recorded, with links to the others it carries."""
        asked = [ticket.span for ticket in tickets if ticket.span is not None]
        if not asked:
            return self._open("commit", context=_UNRECORDED)
        return self._open(
            "commit",
            context=_in(asked[0]),
            links=[Link(span) for span in asked[:MOST_LINKS]],
            attributes={"walletsvc.batch.size": len(tickets)},
        )

    def _open(self, name: str, **given: Any) -> AbstractContextManager[Any]:
        # What an exception says may quote what was sent.
        return self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False, **given
        )

    def here(self) -> SpanContext | None:
        span = trace.get_current_span()
        return span.get_span_context() if span.is_recording() else None

    def stop(self) -> None:
        with gevent.Timeout(LAST_WORDS, False):  # the collector may be away
            self._provider.shutdown()


def _in(parent: SpanContext) -> context.Context:
    return trace.set_span_in_context(NonRecordingSpan(parent), context.Context())


# A trace of its own would be sampled by itself: what no recorded request is part of is not recorded.
_UNRECORDED: Final = _in(SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(0)))


def _parent(request: HttpRequest) -> context.Context:
    parent = traces.parent_of(request)
    if parent is None:
        return context.Context()
    return _in(
        SpanContext(
            int(parent.trace_id, 16),
            int(parent.span_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(parent.is_sampled),
            trace_state=TraceState.from_header([request.META.get("HTTP_TRACESTATE", "")]),
        )
    )


class Spans:
    """Middleware: a span for every request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self._recorder = Recorder()
        traces.record_with(self._recorder)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info in PROBES:
            return self.get_response(request)
        span = self._recorder.serve(request)
        request.trace = _place(span.get_span_context())  # type: ignore[attr-defined]
        token = context.attach(trace.set_span_in_context(span))
        try:
            response = self.get_response(request)
        finally:
            context.detach(token)
        _describe(span, request, response)
        response._resource_closers.append(span.end)  # type: ignore[attr-defined]  # a stream is yet to be sent
        return response


def _place(span: SpanContext) -> Trace:
    return Trace(
        trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id), span.trace_flags.sampled
    )


def _describe(span: Span, request: HttpRequest, response: HttpResponseBase) -> None:
    if not span.is_recording():
        return
    route = route_of(request)
    span.update_name(f"{request.method} {route}")
    span.set_attributes({"http.route": route, "http.response.status_code": response.status_code})
    if wallet := wallet_of(request):
        span.set_attribute("walletsvc.wallet_id", wallet)
    if response.status_code >= 500:  # noqa: PLR2004
        span.set_status(StatusCode.ERROR)
