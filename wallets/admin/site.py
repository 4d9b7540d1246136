"""The operators' site: who may enter, and how they log in."""

from functools import cache
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.views import LogoutView
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from unfold.sites import UnfoldAdminSite

from wallets.access import devices, limits
from wallets.access.attempts import as_told, counted
from wallets.admin import second_factor, start
from wallets.admin.attempts import LoginForm


class OperatorsSite(UnfoldAdminSite):  # type: ignore[misc]
    index_template = "admin/start.html"
    login_form = LoginForm

    def has_permission(self, request: HttpRequest) -> bool:
        return bool(super().has_permission(request)) and devices.suffices(request)

    @method_decorator(counted(limits.LOGIN))
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The first step; who has made it is led to the second, from every page that they ask for."""
        if request.method == "GET" and super().has_permission(request) and not self.has_permission(request):
            return second_factor.ask(request)
        response: HttpResponse = super().login(request, _with_next(request) | (extra_context or {}))
        form = getattr(response, "context_data", {}).get("form")
        return as_told(response, form.problem) if form else response

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response: HttpResponse = super().index(request, {**(extra_context or {}), **start.context(request)})
        return response

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Limited as on the page for people: the old password can be guessed here as well."""
        if request.method == "POST":
            limits.require(limits.LOGIN, limits.network_of(request))
        response: HttpResponse = super().password_change(request, extra_context)
        return response

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Back to the operators' login, not to the people's."""
        response: HttpResponse = LogoutView.as_view(next_page="admin:login")(request)
        return response

    def extra_urls(self) -> list[URLPattern]:
        # Who has shown only a password can leave, too: this path comes before the guarded one.
        return [path("logout/", self.logout, name="logout"), *second_factor.urls()]


@cache
def operators_site() -> OperatorsSite:
    """The one there is.

    Django asks for it, imports this package to find it, and so the pages register themselves, each asking
    for the site.
    """
    return OperatorsSite()


def _with_next(request: HttpRequest) -> dict[str, str]:
    """unfold's form is sent to `app_path`: without a next page there, Django would go on to the people's."""
    if REDIRECT_FIELD_NAME in request.GET:
        return {}
    return {"app_path": f"{request.path}?{urlencode({REDIRECT_FIELD_NAME: reverse('admin:index')})}"}
