"""Who asks. API_ACCESS=key takes requests with an API key alone; =open takes everybody.

A key that is sent to an open API counts all the same: what it may do is what it may do everywhere.
"""

from typing import Any, cast

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from wallets.access import keys, rights
from wallets.access.rights import EVERYBODY, Principal
from wallets.problems import Unauthorized


def principal(request: Request) -> Principal:
    """Who asks."""
    return cast(Principal, request.auth)


class ApiAccess(BaseAuthentication):
    """Makes `request.auth` the Principal who asks."""

    def authenticate(self, request: Request) -> tuple[None, Principal]:
        scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        is_key = scheme.lower() == "bearer" and credentials.startswith(keys.START)
        if not is_key and settings.API_ACCESS == "open":
            return None, EVERYBODY
        known = keys.principal_of(credentials) if is_key else None
        if known is None:
            raise Unauthorized
        return None, known

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class MayUseApi(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        rights.require_scope(principal(request), view, request.method or "")
        return True
