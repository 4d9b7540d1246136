"""Who asks. API_ACCESS=open takes everybody; =key takes nobody yet, because keys are still to come."""

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request


class ApiAccess(BaseAuthentication):
    """Knows nobody. Its header makes a refusal a 401 rather than a 403."""

    def authenticate(self, request: Request) -> None:
        return None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class MayUseApi(BasePermission):
    def has_permission(self, request: Request, view: object) -> bool:
        return settings.API_ACCESS == "open"
