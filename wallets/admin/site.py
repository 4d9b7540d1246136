"""The admin site: access, login and logout of operators."""

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
from wallets.access.attempts import counted, with_problem_status
from wallets.admin import second_factor, start
from wallets.admin.attempts import LoginForm
from wallets.admin.search import TERMS_HELP


class OperatorsSite(UnfoldAdminSite):  # type: ignore[misc]
    index_template = "admin/start.html"
    login_form = LoginForm

    def has_permission(self, request: HttpRequest) -> bool:
        return bool(super().has_permission(request)) and devices.has_required_factor(request)

    @method_decorator(counted(limits.LOGIN))
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Log in with a password. An operator who has done so is redirected to the second factor."""
        if request.method == "GET" and super().has_permission(request) and not self.has_permission(request):
            return second_factor.redirect_to_next_step(request)
        response: HttpResponse = super().login(request, _with_next(request) | (extra_context or {}))
        form = getattr(response, "context_data", {}).get("form")
        return with_problem_status(response, form.problem) if form else response

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"help_text": TERMS_HELP, **(extra_context or {}), **start.context(request)}
        response: HttpResponse = super().index(request, context)
        return response

    def search(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Search in the ledger. The theme's own search finds only names of pages, and caches them."""
        from wallets.admin import search_page  # it imports pages, which get this site

        return search_page.respond(request, self)

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Count attempts, as the users' page does: an attacker could guess the old password here."""
        if request.method == "POST":
            limits.require(limits.LOGIN, limits.network_of(request))
        response: HttpResponse = super().password_change(request, extra_context)
        return response

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Log out and redirect to the operators' login, not to the users' login."""
        response: HttpResponse = LogoutView.as_view(next_page="admin:login")(request)
        return response

    def extra_urls(self) -> list[URLPattern]:
        # This path comes before the guarded one: an operator can log out before the second factor.
        return [path("logout/", self.logout, name="logout"), *second_factor.urls()]


@cache
def operators_site() -> OperatorsSite:
    """Return the single instance of the site.

    Django imports this package to get the site. That import registers the pages, and each registration calls
    this function again.
    """
    return OperatorsSite()


def _with_next(request: HttpRequest) -> dict[str, str]:
    """Add the next page to `app_path`, the target of unfold's form.

    Without a next page, Django would redirect an operator to the users' start page.
    """
    if REDIRECT_FIELD_NAME in request.GET:
        return {}
    return {"app_path": f"{request.path}?{urlencode({REDIRECT_FIELD_NAME: reverse('admin:index')})}"}
