"""Maps exceptions to problems, and problems to HTTP responses."""

import logging
from typing import Any

import orjson
from django import db
from django.conf import settings
from django.core.exceptions import (
    BadRequest as DjangoBadRequest,
)
from django.core.exceptions import (
    DisallowedHost,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from psycopg import errors as postgres
from rest_framework import exceptions as drf
from rest_framework.request import Request
from rest_framework.views import set_rollback

from wallets import problems
from wallets.problems import Problem

logger = logging.getLogger(__name__)

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
    SuspiciousOperation: problems.BadRequest,
    DjangoBadRequest: problems.BadRequest,
    MultiPartParserError: problems.BadRequest,
    UnreadablePostError: problems.BadRequest,  # the client disconnected before the end of its body
}


def to_problem(error: Exception) -> Problem:
    """Return the problem for an exception. Log an unexpected one and return InternalError."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, db.OperationalError | db.InterfaceError):
        if isinstance(error.__cause__, postgres.LockNotAvailable):
            return problems.TooManyRequests("The wallet was busy for too long; nothing was applied.")
        if is_query_timeout(error):
            logger.warning("query canceled after STATEMENT_TIMEOUT_SECONDS")
            return problems.QueryTimeout()
        logger.warning("database error: %s", error)
        return problems.Unavailable()
    if isinstance(error, DisallowedHost):
        return problems.BadRequest("The service does not serve the host of the request (ALLOWED_HOSTS).")
    for kind, problem in _DRF.items():
        if isinstance(error, kind):
            return problem()
    logger.error("unexpected error", exc_info=error)
    return problems.InternalError()


def is_query_timeout(error: Exception) -> bool:
    """Whether the database canceled a statement that took longer than STATEMENT_TIMEOUT_SECONDS."""
    return isinstance(error.__cause__, postgres.QueryCanceled)


def problem_response(request: HttpRequest | Request, problem: Problem) -> HttpResponse:
    """Respond with the problem as application/problem+json."""
    response = HttpResponse(
        orjson.dumps(problem.as_json(request.id, settings.PUBLIC_URL)),  # type: ignore[union-attr]
        status=problem.status,
        content_type=problems.CONTENT_TYPE,
    )
    for name, value in problem.headers.items():
        response[name] = value
    response.problem = problem.code  # type: ignore[attr-defined]
    if problem.replayed:
        response["Idempotent-Replayed"] = "true"
    return response


def exception_handler(error: Exception, context: dict[str, Any]) -> HttpResponse:
    """Respond to an exception that a view raised (EXCEPTION_HANDLER of REST framework)."""
    set_rollback()
    response = problem_response(context["request"], to_problem(error))
    if isinstance(error, drf.MethodNotAllowed):
        response["Allow"] = ", ".join(context["view"].allowed_methods)
    return response
