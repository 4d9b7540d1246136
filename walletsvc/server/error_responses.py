"""Responses to requests that gunicorn cannot parse as HTTP, so that they never reach Django."""

from http import HTTPStatus
from typing import Any

import gunicorn.util
import orjson
from uuid_utils.compat import uuid7

from wallets.problems import CONTENT_TYPE, BadRequest, InternalError
from walletsvc import settings


def write_problem(sock: Any, status: int, reason: str, message: str) -> None:
    is_server_error = status == HTTPStatus.INTERNAL_SERVER_ERROR
    problem = InternalError() if is_server_error else BadRequest(f"{reason}: {message}")
    request_id = str(uuid7())
    content = orjson.dumps(problem.as_json(request_id, settings.PUBLIC_URL))
    head = (
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
        f"Connection: close\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(content)}\r\n"
        f"X-Request-ID: {request_id}\r\n\r\n"
    )
    if settings.METRICS:
        from wallets.observability import metrics

        metrics.count_unreadable(problem.status)
    gunicorn.util.write_nonblock(sock, head.encode() + content)
