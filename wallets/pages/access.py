"""Who may see a page, and whose wallets are on it."""

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


def for_people(view: View) -> View:
    """Decorate a page for users: redirect to the login without a session, and apply the rate limit."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        user = user_of(request)
        limits.require_for_caller(rights.person(user), request)
        if user.is_staff and not devices.has_required_factor(request):
            return redirect("admin:index")  # which asks for the second factor
        return view(request, *args, **kwargs)

    with_login = login_required(guarded)

    @wraps(view)
    def asked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if "HX-Request" in request.headers and not request.user.is_authenticated:
            # Otherwise HTMX would put the login form into a part of the page.
            return HttpResponse(headers={"HX-Redirect": settings.LOGIN_URL})
        return with_login(request, *args, **kwargs)

    return asked


def user_of(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - only views for people ask
    return request.user


def own_wallet(request: HttpRequest, wallet_id: UUID) -> Wallet:
    """Return the user's own wallet. Raises WalletNotFound for any other, also for operators."""
    return rights.visible(rights.person(user_of(request)), read_wallet(wallet_id))
