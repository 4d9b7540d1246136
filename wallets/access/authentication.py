"""Authenticates a request by an API key or a session; by neither if API_ACCESS=open.

With API_ACCESS=open, a key or session that the client sends still decides its permissions.
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
from wallets.access.rights import ANONYMOUS, OPEN_API_CLIENT, Principal
from wallets.apps import give_back_connection
from wallets.database_retry import retry_until_deadline
from wallets.models import User
from wallets.problems import Forbidden, Unauthorized

# No credentials contain a comma: a comma means that the server joined the values of a repeated header.
_REPEATED: Final = re.compile(r"\s*(?:basic|bearer)\b[^,]*,|.*,\s*(?:basic|bearer)\b", re.IGNORECASE)


def principal(request: Request) -> Principal:
    """Return the principal that ApiAccess found."""
    return cast(Principal, request.auth)


class ApiAccess(BaseAuthentication):
    """Sets `request.auth` to the Principal, and `request.user` to the user of a session, if there is one."""

    def authenticate(self, request: Request) -> tuple[User | None, Principal]:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if _REPEATED.match(header):
            raise Unauthorized("Send one Authorization header.")
        scheme, _, credentials = header.partition(" ")
        is_key = scheme.lower() == "bearer" and credentials.startswith(keys.START)
        if not header and request.META.get("HTTP_COOKIE"):
            found = retry_until_deadline(lambda: _from_session(request._request))
            give_back_connection()  # other requests may use it: the body may arrive slowly
            if found is not None:
                return found
        if not is_key and settings.API_ACCESS == "open":
            return None, OPEN_API_CLIENT
        key_principal = keys.principal_of(credentials) if is_key else None
        if key_principal is None:
            raise Unauthorized
        return None, key_principal

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class NoAuthentication(BaseAuthentication):
    """Authentication of the views that need no credentials, such as sign-up and login."""

    def authenticate(self, request: Request) -> tuple[None, Principal]:
        return None, ANONYMOUS


class MayUseApi(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        rights.require_scope(principal(request), view, request.method or "")
        return True


def _from_session(request: HttpRequest) -> tuple[User, Principal] | None:
    """Return the user and principal. Raises Forbidden if a page of another site may have sent the request."""
    user = request.user
    if not isinstance(user, User):
        return None
    try:
        SessionAuthentication().enforce_csrf(request)  # type: ignore[arg-type]
    except PermissionDenied:
        raise Forbidden(
            "With a session, send the value of the cookie csrftoken in X-CSRFToken. Over HTTPS, Origin or"
            " Referer must name this service."
        ) from None
    if not user.is_staff:
        return user, rights.person(user)
    if not devices.has_required_factor(request):
        return user, rights.unverified_operator(user)
    return user, rights.operator(user)
