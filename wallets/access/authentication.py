"""Who asks: a program with an API key, a person or operator with a session, or anybody where API_ACCESS=open.

What is sent to an open API counts all the same: what a key or session may do is what it may do everywhere.
"""

import re
from typing import Any, Final, cast

from django.conf import settings
from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from wallets.access import devices, keys, rights
from wallets.access.rights import EVERYBODY, NOBODY, Principal
from wallets.apps import give_back_connection
from wallets.database_retry import retry_until_deadline
from wallets.models import User
from wallets.problems import Forbidden, Unauthorized

# Neither kind of credentials has a comma: the server has joined the values of a header that was sent twice.
_REPEATED: Final = re.compile(r"\s*(?:basic|bearer)\b[^,]*,|.*,\s*(?:basic|bearer)\b", re.IGNORECASE)


def principal(request: Request) -> Principal:
    """Who asks."""
    return cast(Principal, request.auth)


class ApiAccess(BaseAuthentication):
    """Makes `request.auth` the Principal who asks, and `request.user` who is logged in, if anybody is."""

    def authenticate(self, request: Request) -> tuple[User | None, Principal]:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if _REPEATED.match(header):
            raise Unauthorized("Send Authorization once.")
        scheme, _, credentials = header.partition(" ")
        is_key = scheme.lower() == "bearer" and credentials.startswith(keys.START)
        if not header and request.META.get("HTTP_COOKIE"):
            of_session = retry_until_deadline(lambda: _of_session(request._request))
            give_back_connection()  # the body may be long in coming, and others need it meanwhile
            if of_session is not None:
                return of_session
        if not is_key and settings.API_ACCESS == "open":
            return None, EVERYBODY
        known = keys.principal_of(credentials) if is_key else None
        if known is None:
            raise Unauthorized
        return None, known

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class Anybody(BaseAuthentication):
    """For what is there to become somebody."""

    def authenticate(self, request: Request) -> tuple[None, Principal]:
        return None, NOBODY


class MayUseApi(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        rights.require_scope(principal(request), view, request.method or "")
        return True


def _of_session(request: HttpRequest) -> tuple[User, Principal] | None:
    """Raises Forbidden where another site's page may have sent the request."""
    user = request.user
    if not isinstance(user, User):
        return None
    try:
        SessionAuthentication().enforce_csrf(request)  # type: ignore[arg-type]
    except PermissionDenied:
        raise Forbidden(
            "With a session, X-CSRFToken has to be what the cookie csrftoken says; and over HTTPS, Origin or"
            " Referer has to name this service."
        ) from None
    if not user.is_staff:
        return user, rights.person(user)
    return user, rights.operator(user) if devices.suffices(request) else rights.unproven(user)
