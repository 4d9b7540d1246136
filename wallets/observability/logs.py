"""What a line of the log says: one JSON object, or text for people; and what it never says.

Secrets, bodies and addresses as they were sent stay out: of an error only its first line is told, as those
that follow in psycopg's and pydantic's quote what was stored or sent. No line begins where a client says.
Nothing here may import Django: gunicorn's master has it for its logs.
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
    """The line of a request that has been answered."""
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
    told = {name: value for name, value in fields.items() if value is not None}
    REQUESTS.info("%s %s %d", method, route, status, extra={"fields": told})


def outcome_of(response: Any) -> str | None:
    """The code of a problem, or the status of what was made."""
    if code := getattr(response, "problem", None):
        return str(code)
    data = getattr(response, "data", None)
    return data.get("status") if isinstance(data, dict) and response.status_code in (201, 202) else None


# --- One line ---------------------------------------------------------------------------------------
class Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        told = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": _sendable(message_of(record)),
            **_place(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1]:
            told["exception"] = _sendable(traceback_of(record.exc_info[1]))
        return orjson.dumps(told, default=str).decode()


class Line(logging.Formatter):
    """Text, with the same behind it."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _place() | getattr(record, "fields", {})
        head = f"{self.formatTime(record)} {record.levelname} {record.name}: {message_of(record)}"
        line = _sendable(" ".join((head, *(f"{name}={value}" for name, value in fields.items()))))
        line = line.translate(_CONTROLS)
        if record.exc_info and record.exc_info[1]:
            line += "\n" + _sendable(traceback_of(record.exc_info[1]))
        return line


def _place() -> dict[str, str]:
    """Of the request that is being served."""
    request = request_context.request.get()
    if request is None:
        return {}
    trace = trace_of(request)
    return {"request_id": request.id, "trace_id": trace.trace_id, "span_id": trace.span_id}  # type: ignore[attr-defined]


def _sendable(text: str) -> str:
    """Without the halves of characters that a path can be made to contain."""
    return text.encode(errors="backslashreplace").decode()


# --- What is said of errors and addresses -----------------------------------------------------------
def message_of(record: logging.LogRecord) -> str:
    request = getattr(record, "request", None)  # Django's lines have it, and name its path
    if not isinstance(record.args, tuple) or not record.args:
        return record.getMessage()
    args = tuple(_told(arg, request) for arg in record.args)
    return str(record.msg) % args


def _told(arg: Any, request: Any) -> Any:
    if isinstance(arg, BaseException):
        return first_line(arg)
    if request is not None and isinstance(arg, str) and arg.startswith("/"):
        return request_context.route_of(request) if hasattr(request, "resolver_match") else "/…"
    return arg


def first_line(error: BaseException) -> str:
    return what_is_told(type(error).__module__, type(error).__qualname__, str(error))


def what_is_told(module: str | None, kind: str, text: str) -> str:
    """Of the text of an error. smtplib's say in the first line to whom it was."""
    return kind if module == "smtplib" else text.strip().partition("\n")[0].translate(_CONTROLS)


def traceback_of(error: BaseException | None) -> str:
    """As Python's, the errors that led to it first."""
    told: list[str] = []
    while error is not None and len(told) < 10:  # noqa: PLR2004 - more lead nowhere, or in a circle
        frames = "".join(traceback.format_tb(error.__traceback__))
        told.append(f"Traceback (most recent call last):\n{frames}{_name(error)}: {first_line(error)}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nThat led to:\n\n".join(reversed(told))


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
