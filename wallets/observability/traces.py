"""Which trace a request is part of: W3C Trace Context. OpenTelemetry is spans.py, where it is switched on.

Nothing here may import Django or OpenTelemetry: it is on the way of every request.
"""

import re
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from django.http import HttpRequest

# Of a version to come, what it adds is behind a further dash.
_PARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED: Final = 1


class Trace(NamedTuple):
    """A request's place in it: the span is the request's own, or the caller's where it is the parent."""

    trace_id: str
    span_id: str
    is_sampled: bool


def parent_of(request: "HttpRequest") -> Trace | None:
    """The caller's place. None where it says none, or nothing that the specification allows."""
    match = _PARENT.fullmatch(request.META.get("HTTP_TRACEPARENT", ""))
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if more and version == "00":
        return None
    return Trace(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def trace_of(request: "HttpRequest") -> Trace:
    """The request's place, made when it is first asked for: most requests are never told about."""
    try:
        return request.trace  # type: ignore[attr-defined, no-any-return]
    except AttributeError:
        parent = parent_of(request)
        trace = Trace(parent.trace_id if parent else secrets.token_hex(16), secrets.token_hex(8), False)
        request.trace = trace  # type: ignore[attr-defined]
        return trace


def response_header(trace: Trace) -> str:
    """`traceresponse`, as the specification's next level has it: level 2 says nothing of answers."""
    return f"00-{trace.trace_id}-{trace.span_id}-{'01' if trace.is_sampled else '00'}"


# --- What is recorded where OpenTelemetry is on -----------------------------------------------------
class Asked(Protocol):
    """A ticket that remembers the span in which it was asked."""

    span: Any


class Recorder(Protocol):
    def here(self) -> Any: ...
    def wait(self) -> AbstractContextManager[Any]: ...
    def batch(self, tickets: Sequence[Asked]) -> AbstractContextManager[Any]: ...
    def stop(self) -> None: ...


_NOTHING: Final[AbstractContextManager[None]] = nullcontext()
_recorder: Recorder | None = None


def record_with(recorder: Recorder) -> None:
    global _recorder  # noqa: PLW0603
    _recorder = recorder


def here() -> Any:
    """The span that is open here; None where there is none that is recorded."""
    return None if _recorder is None else _recorder.here()


def wait() -> AbstractContextManager[Any]:
    """Around waiting for a commit."""
    return _NOTHING if _recorder is None else _recorder.wait()


def batch(tickets: Sequence[Asked]) -> AbstractContextManager[Any]:
    """Around a transaction that carries out the tickets."""
    return _NOTHING if _recorder is None else _recorder.batch(tickets)


def stop() -> None:
    """Send what is recorded, and record no more."""
    if _recorder is not None:
        _recorder.stop()
