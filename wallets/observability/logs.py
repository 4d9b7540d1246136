"""Format log records as JSON objects or as text, without secrets and client input.

Secrets, bodies and raw paths are never logged. Of an exception's message only the first line is logged: the
next lines of psycopg's and pydantic's messages quote stored or received values. Control characters are
escaped, so a client cannot start a new line. This module must not import Django: gunicorn's master uses it.
"""

import logging
import traceback
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from wallets.observability import request_context
from wallets.observability.traces import trace_of

REQUESTS: Final = logging.getLogger("wallets.requests")

_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    code: f"\\u{code:04x}" for code in (0x2028, 0x2029)
}


# --- One request ------------------------------------------------------------------------------------
def log_request(method: str, status: int, seconds: float) -> None:
    """Log a request that has been answered."""
    request = request_context.request.get()
    fields: dict[str, Any] = {"method": method, "status": status, "duration_ms": round(seconds * 1000, 3)}
    if request is not None:
        fields |= {
            "route": request_context.route_of(request),
            "wallet_id": request_context.wallet_of(request),
            "outcome": getattr(request, "outcome", None),
            "who": request_context.sender_of(request),
        }
    route = fields.get("route", request_context.UNREADABLE)
    values = {name: value for name, value in fields.items() if value is not None}
    REQUESTS.info("%s %s %d", method, route, status, extra={"fields": values})


def outcome_of(response: Any) -> str | None:
    """Return the problem's code, or the status of the created object."""
    if code := getattr(response, "problem", None):
        return str(code)
    data = getattr(response, "data", None)
    return data.get("status") if isinstance(data, dict) and response.status_code in (201, 202) else None


# --- One line ---------------------------------------------------------------------------------------
class Json(logging.Formatter):
    """Format a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        values = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": _encodable(message_of(record)),
            **_request_ids(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1]:
            values["exception"] = _encodable(traceback_of(record.exc_info[1]))
        return orjson.dumps(values, default=str).decode()


class Line(logging.Formatter):
    """Format a record as text, followed by its fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _request_ids() | getattr(record, "fields", {})
        head = f"{self.formatTime(record)} {record.levelname} {record.name}: {message_of(record)}"
        line = _encodable(" ".join((head, *(f"{name}={value}" for name, value in fields.items()))))
        line = line.translate(_CONTROLS)
        if record.exc_info and record.exc_info[1]:
            line += "\n" + _encodable(traceback_of(record.exc_info[1]))
        return line


def _request_ids() -> dict[str, str]:
    """Return the ids of the current request."""
    request = request_context.request.get()
    if request is None:
        return {}
    trace = trace_of(request)
    return {"request_id": request.id, "trace_id": trace.trace_id, "span_id": trace.span_id}  # type: ignore[attr-defined]


def _encodable(text: str) -> str:
    """Escape lone surrogates, which a crafted path can contain."""
    return text.encode(errors="backslashreplace").decode()


# --- Errors and paths -------------------------------------------------------------------------------
def message_of(record: logging.LogRecord) -> str:
    request = getattr(record, "request", None)  # Django's own records have it, with the path in `args`
    if not isinstance(record.args, tuple) or not record.args:
        return record.getMessage()
    args = tuple(_safe_argument(arg, request) for arg in record.args)
    return str(record.msg) % args


def _safe_argument(arg: Any, request: Any) -> Any:
    if isinstance(arg, BaseException):
        return first_line(arg)
    if request is not None and isinstance(arg, str) and arg.startswith("/"):
        return request_context.route_of(request) if hasattr(request, "resolver_match") else "/…"
    return arg


def first_line(error: BaseException) -> str:
    return safe_message(type(error).__module__, type(error).__qualname__, str(error))


def safe_message(module: str | None, kind: str, text: str) -> str:
    """Return the part of an error's message that may be logged: smtplib's first line names the recipient."""
    return kind if module == "smtplib" else text.strip().partition("\n")[0].translate(_CONTROLS)


def traceback_of(error: BaseException | None) -> str:
    """Format the traceback like Python, causes first."""
    values: list[str] = []
    while error is not None and len(values) < 10:  # noqa: PLR2004 - the chain may be a cycle
        frames = "".join(traceback.format_tb(error.__traceback__))
        values.append(f"Traceback (most recent call last):\n{frames}{_name(error)}: {first_line(error)}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nThat exception led to:\n\n".join(reversed(values))


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
