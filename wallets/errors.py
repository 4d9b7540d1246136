"""Where errors become HTTP: the one place that knows both Problem and response."""

import logging
from http import HTTPStatus
from typing import Any

import orjson
from django import db
from django.core.exceptions import (
    BadRequest as DjangoBadRequest,
)
from django.core.exceptions import (
    DisallowedHost,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from psycopg import errors as postgres
from rest_framework import exceptions as drf
from rest_framework.request import Request
from rest_framework.views import set_rollback

from wallets import problems
from wallets.problems import Problem

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"

_DRF: dict[type[Exception], type[Problem]] = {
    drf.NotAuthenticated: problems.Unauthorized,
    drf.AuthenticationFailed: problems.Unauthorized,
    drf.PermissionDenied: problems.Forbidden,
    drf.MethodNotAllowed: problems.MethodNotAllowed,
    drf.NotAcceptable: problems.NotAcceptable,
    drf.UnsupportedMediaType: problems.UnsupportedMediaType,
    drf.Throttled: problems.TooManyRequests,
    Http404: problems.NotFound,
    RequestDataTooBig: problems.PayloadTooLarge,
    DisallowedHost: problems.BadRequest,
    SuspiciousOperation: problems.BadRequest,
    DjangoBadRequest: problems.BadRequest,
    UnreadablePostError: problems.BadRequest,  # the client went away in the middle of its body
}


def to_problem(error: Exception) -> Problem:
    """The problem that tells a client of this error. What is unknown is logged and is a 500."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, db.OperationalError | db.InterfaceError):
        if isinstance(error.__cause__, postgres.LockNotAvailable):
            return problems.TooManyRequests("The wallet was busy for too long; nothing was applied.")
        logger.warning("the database failed: %s", error)
        return problems.Unavailable()
    for kind, problem in _DRF.items():
        if isinstance(error, kind):
            return problem()
    logger.error("unexpected error", exc_info=error)
    return problems.InternalError()


def body(problem: Problem, request_id: str) -> dict[str, Any]:
    """RFC 9457, with our code, requestId, and errors or operationId where there are any."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "requestId": request_id,
    }
    if problem.errors:
        content["errors"] = [
            {"field": error.field, "code": error.code, "detail": error.detail} for error in problem.errors
        ]
    if problem.operation_id:
        content["operationId"] = str(problem.operation_id)
    return content


def problem_response(request: HttpRequest | Request, problem: Problem) -> HttpResponse:
    response = HttpResponse(
        orjson.dumps(body(problem, request.id)),  # type: ignore[union-attr]
        status=problem.status,
        content_type=CONTENT_TYPE,
    )
    for name, value in problem.headers.items():
        response[name] = value
    if problem.replayed:
        response["Idempotent-Replayed"] = "true"
    return response


def exception_handler(error: Exception, context: dict[str, Any]) -> HttpResponse:
    """DRF's hook: whatever a view raises leaves here."""
    set_rollback()
    response = problem_response(context["request"], to_problem(error))
    if isinstance(error, drf.MethodNotAllowed):
        response["Allow"] = ", ".join(context["view"].allowed_methods)
    return response


def as_http(problem: Problem, request_id: str) -> bytes:
    """A whole HTTP/1.1 answer that ends its connection, for where there is no request yet."""
    content = orjson.dumps(body(problem, request_id))
    head = (
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\nConnection: close\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {len(content)}\r\n"
        f"X-Request-ID: {request_id}\r\n\r\n"
    )
    return head.encode() + content
