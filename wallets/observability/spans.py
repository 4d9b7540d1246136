"""Send OpenTelemetry spans to OTEL_EXPORTER_OTLP_ENDPOINT; imported only if that is set.

opentelemetry-instrumentation-django is unsuitable: it records paths, query strings, IP addresses and messages
of exceptions, which can hold secrets, and ends the span of a streamed response before the stream. The SDK
reads OpenTelemetry's other variables itself (OTEL_TRACES_SAMPLER, OTEL_BSP_… and so on).
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import gevent
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from wallets.observability import traces
from wallets.observability.request_context import PROBE_PATHS, route_of, wallet_of

MAX_SPAN_LINKS: Final = 100  # of the span of a batch to its requests
SHUTDOWN_SECONDS: Final = 3.0  # for a worker to send its last spans
_PROPAGATOR: Final = TraceContextTextMapPropagator()
# An exception's message may quote the request.
_WITHOUT_MESSAGES: Final[dict[str, Any]] = {"record_exception": False, "set_status_on_exception": False}


class Spans:
    """Middleware: a span for each request. Created after the fork, as the exporter has a thread."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        for name in [name for name, value in os.environ.items() if name.startswith("OTEL_") and not value]:
            del os.environ[name]  # the SDK does not treat every empty variable as unset
        instance = {"service.instance.id": f"{os.uname().nodename}:{os.getpid()}"}
        resource = Resource.create({"service.name": settings.OTEL_SERVICE_NAME} | instance)
        self.get_response = get_response
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("walletsvc")
        traces.recorder = self

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info in PROBE_PATHS:
            return self.get_response(request)
        method, request_id = str(request.method), request.id  # type: ignore[attr-defined]
        attributes = {"http.request.method": method, "walletsvc.request_id": request_id}
        span = self._tracer.start_span(method, _caller_of(request), SpanKind.SERVER, attributes)
        own = span.get_span_context()
        request.trace = traces.Trace(  # type: ignore[attr-defined]
            trace.format_trace_id(own.trace_id), trace.format_span_id(own.span_id), own.trace_flags.sampled
        )
        with trace.use_span(span, **_WITHOUT_MESSAGES):
            response = self.get_response(request)
        if span.is_recording():
            _describe(span, request, response)
        response._resource_closers.append(span.end)  # type: ignore[attr-defined]  # a stream is sent after this returns
        return response

    def current_span(self) -> SpanContext | None:
        span = trace.get_current_span()
        return span.get_span_context() if span.is_recording() else None

    def open(self, name: str, **options: Any) -> AbstractContextManager[Any]:
        return self._tracer.start_as_current_span(name, **_WITHOUT_MESSAGES, **options)

    def batch(self, spans: Sequence[SpanContext | None]) -> AbstractContextManager[Any]:
        """Open a span in the trace of the batch's first recorded request, with links to the others."""
        links = [Link(span) for span in spans if span is not None][:MAX_SPAN_LINKS]
        return self.open(
            "commit",
            context=_child_context(links[0].context if links else _UNRECORDED),
            links=links,
            attributes={"walletsvc.batch.size": len(spans)},
        )

    def stop(self) -> None:
        with gevent.Timeout(SHUTDOWN_SECONDS, False):  # the collector may be unavailable
            self._provider.shutdown()


# The parent of a batch without a recorded request: without this parent the batch itself could be sampled.
_UNRECORDED: Final = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(0))


def _child_context(parent: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def _caller_of(request: HttpRequest) -> Context:
    headers = {name: request.headers[name] for name in _PROPAGATOR.fields if name in request.headers}
    return _PROPAGATOR.extract(headers, Context())


def _describe(span: Span, request: HttpRequest, response: HttpResponseBase) -> None:
    route = route_of(request)
    span.update_name(f"{request.method} {route}")
    span.set_attributes({"http.route": route, "http.response.status_code": response.status_code})
    if wallet := wallet_of(request):
        span.set_attribute("walletsvc.wallet_id", wallet)
    if response.status_code >= 500:  # noqa: PLR2004
        span.set_status(StatusCode.ERROR)
