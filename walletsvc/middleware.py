"""Middleware of every request."""

import re
import time
from collections.abc import Callable, Collection
from enum import Enum
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final

from django import db
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.locale import LocaleMiddleware
from django.utils import translation
from django_otp.middleware import OTPMiddleware
from uuid_utils.compat import uuid7
from whitenoise.middleware import WhiteNoiseMiddleware

from wallets.apps import give_back_connection
from wallets.error_mapping import is_query_timeout, problem_response, to_problem
from wallets.observability import request_context
from wallets.observability.logs import outcome_of
from wallets.observability.metrics import count_request
from wallets.observability.traces import response_header, trace_of
from wallets.pages.error_pages import problem_page
from wallets.problems import PAGES_PATH, BadRequest, MethodNotAllowed, PayloadTooLarge, Problem

GetResponse = Callable[[HttpRequest], HttpResponseBase]

MAX_ACCEPT_LENGTH: Final = 1000  # browsers send about 150
MAX_FORM_BYTES: Final = 65_536  # the longest form is one of the admin's, with metadata and a reason
STATUSES_WITHOUT_BODY: Final = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_VALID_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class RequestMetrics:
    """Counts and times every request. It is the outermost middleware, so it counts early refusals too."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        began = time.perf_counter()
        response = self.get_response(request)
        count_request(request, response.status_code, time.perf_counter() - began)
        return response


class RequestId:
    """Sets the request id and adds it to the response: the client's if it is valid, otherwise a new one."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self._is_logged = settings.ACCESS_LOG

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        request.id = given if _VALID_ID.fullmatch(given) else str(uuid7())  # type: ignore[attr-defined]
        request_context.request.set(request)
        response = self.get_response(request)
        response["X-Request-ID"] = request.id  # type: ignore[attr-defined]
        if "HTTP_TRACEPARENT" in request.META:  # the client wants to know the trace of this request
            response["traceresponse"] = response_header(trace_of(request))
        if self._is_logged:
            request.outcome = outcome_of(response)  # type: ignore[attr-defined]
        if isinstance(response, HttpResponse) and response.status_code not in STATUSES_WITHOUT_BODY:
            # Otherwise the server sends the response in chunks.
            response["Content-Length"] = str(len(response.content))
        return response


class Area(Enum):
    """The areas of the service. The value of each is its content security policy."""

    API = "default-src 'none'; frame-ancestors 'none'"
    PAGES = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    PROBLEM_TYPES = (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    # Swagger UI and ReDoc need an inline script and inline styles.
    DOCS = (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; worker-src 'self' blob:; base-uri 'none'; frame-ancestors 'none'"
    )
    # unfold evaluates expressions in attributes.
    ADMIN = (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    )


_AREAS: Final = (
    ("/api/docs", Area.DOCS),
    ("/api/redoc", Area.DOCS),
    ("/api", Area.API),
    (PAGES_PATH, Area.PROBLEM_TYPES),
    ("/livez", Area.API),
    ("/readyz", Area.API),
    ("/metrics", Area.API),
    ("/static/", Area.API),
    ("/admin/", Area.ADMIN),
)


def area_of(request: HttpRequest) -> Area:
    """Return the area of a request, which Headers has set for all later middlewares."""
    area: Area = request.area  # type: ignore[attr-defined]
    return area


def _find_area(path: str) -> Area:
    if path.startswith("/api/v1/"):
        return Area.API
    return next((area for start, area in _AREAS if path.startswith(start)), Area.PAGES)


HTML_AREAS: Final = (Area.PAGES, Area.ADMIN)
SIGN_IN_PATHS: Final = ("/api/v1/login", "/api/v1/signup")

# Also set here, because a request that is refused early does not reach Django's middlewares.
_COMMON_HEADERS: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Headers:
    """Sets the request's area, and adds the headers that tell a browser what it may load and cache."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request.area = area = _find_area(request.path_info)  # type: ignore[attr-defined]
        request.may_have_session = (  # type: ignore[attr-defined]
            area in HTML_AREAS or bool(request.META.get("HTTP_COOKIE")) or request.path_info in SIGN_IN_PATHS
        )
        response = self.get_response(request)
        response.setdefault("Content-Security-Policy", area.value)
        for name, value in _COMMON_HEADERS.items():
            response.setdefault(name, value)
        response.setdefault("Cache-Control", "no-store" if area is Area.PAGES else "private, no-cache")
        return response


class Problems:
    """Responds to errors outside of REST framework's views with problem+json, or with an HTML page.

    The admin keeps Django's error pages.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            # A probe sends an IP address as the host.
            if request.path_info not in request_context.PROBE_PATHS:
                request.get_host()  # raises if the host is not allowed; the response is ours, not Django's
        except Exception as error:
            return problem_response(request, to_problem(error))
        if _would_be_redirected_as_get(request):
            return problem_response(request, BadRequest("Send requests to the API over HTTPS."))
        # CONNECT host:port and OPTIONS * have no path, so the resolver would fail.
        if not request.path_info.startswith("/"):
            return problem_response(request, BadRequest())
        if area_of(request) in HTML_AREAS and _is_form_too_long(request):
            return respond_to_error(request, PayloadTooLarge())
        # Parsing and sorting a longer one is expensive.
        if len(request.META.get("HTTP_ACCEPT", "")) > MAX_ACCEPT_LENGTH:
            return respond_to_error(
                request, BadRequest(f"Accept has at most {MAX_ACCEPT_LENGTH} characters.")
            )
        response = self.get_response(request)
        if area_of(request) is Area.PAGES and response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = response.get("Allow", "")
            response = respond_to_error(request, MethodNotAllowed())  # Django's response has an empty body
            response["Allow"] = allowed
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        if area_of(request) is Area.ADMIN and not _is_caused_by_client(error):
            return None
        return respond_to_error(request, error)


def _is_caused_by_client(error: Exception) -> bool:
    """Whether the client caused the error. In the admin, Django handles all other errors."""
    return isinstance(error, Problem | SuspiciousOperation) or is_query_timeout(error)


def _would_be_redirected_as_get(request: HttpRequest) -> bool:
    """Whether Django would redirect to HTTPS a request that clients then repeat as a GET without its body."""
    is_read = request.method in ("GET", "HEAD")
    return (
        settings.SECURE_SSL_REDIRECT and area_of(request) is Area.API and not (is_read or request.is_secure())
    )


def _is_form_too_long(request: HttpRequest) -> bool:
    """Whether the form of a page is too long. The API checks its bodies itself."""
    return int(request.META.get("CONTENT_LENGTH") or 0) > min(settings.MAX_BODY_BYTES, MAX_FORM_BYTES)


def respond_to_error(request: HttpRequest, error: Exception) -> HttpResponseBase:
    is_html = area_of(request) in HTML_AREAS
    return (problem_page if is_html else problem_response)(request, to_problem(error))


# --- Middlewares of some areas ----------------------------------------------------------------------
class OnlyHtmlAreas:
    """Mixin: the middleware skips requests outside of the pages and the admin."""

    areas: Collection[Area] = HTML_AREAS
    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        if not self.applies_to(request):
            return self.get_response(request)
        return super().__call__(request)  # type: ignore[misc]

    def applies_to(self, request: HttpRequest) -> bool:
        return area_of(request) in self.areas


class OnlyWithSession(OnlyHtmlAreas):
    """Mixin: the middleware skips requests that cannot have a session."""

    def applies_to(self, request: HttpRequest) -> bool:
        may: bool = request.may_have_session  # type: ignore[attr-defined]
        return may


class Sessions(OnlyWithSession, SessionMiddleware):
    def process_request(self, request: HttpRequest) -> None:
        """Ignore a malformed session cookie: PostgreSQL would refuse a NUL in it."""
        key = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
        if not (key.isascii() and key.isalnum()):
            request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)
        super().process_request(request)

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        try:
            return super().process_response(request, response)
        except (db.Error, SessionInterrupted) as error:  # not saved, so the user is not logged in
            return respond_to_error(request, error)
        finally:
            give_back_connection()  # the response may be sent slowly


class Csrf(OnlyWithSession, CsrfViewMiddleware):
    """Sets the CSRF cookie, and checks the forms of pages. authentication.py checks requests of the API."""

    def process_view(self, request: HttpRequest, *view: Any) -> Any:
        if not OnlyHtmlAreas.applies_to(self, request):
            return None
        try:
            return super().process_view(request, *view)  # reads the form, which may be malformed
        except Exception as error:
            return respond_to_error(request, error)


class Locale(OnlyHtmlAreas, LocaleMiddleware):
    """Activates the language that the user chose, or the browser's. The API and the admin are in English."""

    areas = (Area.PAGES,)

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        localized = super().process_response(request, response)
        translation.deactivate()  # the next request on this connection may be for the API
        return localized


class Authentication(OnlyWithSession, AuthenticationMiddleware):
    pass


class SecondFactor(OnlyWithSession, OTPMiddleware):  # type: ignore[misc]
    """Adds request.user.is_verified(): whether this session has passed the second factor."""


class Messages(OnlyHtmlAreas, MessageMiddleware):
    pass


class StaticFiles:
    """Serves static files of the pages, the admin and the API documentation from installed packages."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        is_file = request.path_info.startswith("/static/")
        response: HttpResponseBase = (self._static_files if is_file else self.get_response)(request)
        return response

    @cached_property
    def _static_files(self) -> WhiteNoiseMiddleware:
        """Search the files at the first request for one, not at the start: the search takes time."""
        return WhiteNoiseMiddleware(self.get_response)
