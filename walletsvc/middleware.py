"""What happens to every request before and after its view."""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from uuid_utils.compat import uuid7
from whitenoise.middleware import WhiteNoiseMiddleware

from wallets.errors import problem_response, to_problem

GetResponse = Callable[[HttpRequest], HttpResponseBase]

PROBES: Final = ("/livez", "/readyz")
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class RequestId:
    """Every answer names its request: by the client's own id where that is sane, else by a new one."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        request.id = given if _SANE_ID.fullmatch(given) else str(uuid7())  # type: ignore[attr-defined]
        response = self.get_response(request)
        response["X-Request-ID"] = request.id  # type: ignore[attr-defined]
        if isinstance(response, HttpResponse) and response.status_code != HTTPStatus.NOT_MODIFIED:
            response["Content-Length"] = str(len(response.content))  # else the server sends it in chunks
        return response


class Problems:
    """What fails outside a DRF view still leaves as problem+json, whatever DEBUG says.

    The pages of the admin keep Django's own error pages.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            if request.path_info not in PROBES:  # they come by address
                request.get_host()  # a host that is not allowed is refused here, in our form
        except Exception as error:
            return problem_response(request, to_problem(error))
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        if is_page(request):
            return None
        return problem_response(request, to_problem(error))


def is_page(request: HttpRequest) -> bool:
    return request.path_info.startswith("/admin/")


class ForPages:
    """Mixin: the middleware works for the admin's pages only; the API pays nothing for it."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        if not is_page(request):
            return self.get_response(request)
        return super().__call__(request)  # type: ignore[misc]


class Sessions(ForPages, SessionMiddleware):
    pass


class Csrf(ForPages, CsrfViewMiddleware):
    def process_view(self, request: HttpRequest, *view: Any) -> Any:
        return super().process_view(request, *view) if is_page(request) else None


class Authentication(ForPages, AuthenticationMiddleware):
    pass


class Messages(ForPages, MessageMiddleware):
    pass


class StaticFiles(WhiteNoiseMiddleware):  # type: ignore[misc]
    """The files of the admin and the API's documentation, from the packages that bring them."""

    def __call__(self, request: HttpRequest) -> Any:
        if not request.path_info.startswith("/static/"):
            return self.get_response(request)
        return super().__call__(request)
