"""Access to the pages: sessions, rate limits, and the wallets of the user."""

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect

from wallets.access import devices, limits, rights
from wallets.ledger import read_wallet
from wallets.models import User, Wallet

View = Callable[..., HttpResponseBase]


def user_page(view: View) -> View:
    """Decorate a page for users: redirect to the login without a session, and apply the rate limit."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        user = user_of(request)
        limits.require_for_caller(rights.person(user), request)
        if user.is_staff and not devices.has_required_factor(request):
            return redirect("admin:index")  # it asks for the second factor
        return view(request, *args, **kwargs)

    with_login = login_required(guarded)

    @wraps(view)
    def with_htmx_redirect(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if "HX-Request" in request.headers and not request.user.is_authenticated:
            # With a plain redirect, HTMX would insert the login form into the page.
            return HttpResponse(headers={"HX-Redirect": settings.LOGIN_URL})
        return with_login(request, *args, **kwargs)

    return with_htmx_redirect


def user_of(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - only pages with a session call this
    return request.user


def own_wallet(request: HttpRequest, wallet_id: UUID) -> Wallet:
    """Return the user's own wallet. Raises WalletNotFound for any other, also for operators."""
    return rights.visible(rights.person(user_of(request)), read_wallet(wallet_id))
