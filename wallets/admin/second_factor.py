"""The pages that ask an operator for a second factor, and those where it is set up and looked after."""

from base64 import b32encode
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, cast
from urllib.parse import urlencode

import segno
from django.conf import settings
from django.contrib import admin, auth
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import mark_safe
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST
from django_otp.plugins.otp_totp.models import TOTPDevice, default_key

from wallets.access import devices, limits, people
from wallets.access.attempts import as_told, counted
from wallets.admin.attempts import CodeForm, EnrolForm
from wallets.models import User

View = Callable[[HttpRequest], HttpResponse]

# In the session, so that nobody else who has the password knows the key that is about to be used.
KEY: Final = "second_factor_key"
CODES: Final = "recovery_codes"


# --- Who sees them ----------------------------------------------------------------------------------
def for_operators(view: View) -> View:
    """For operators who have shown their password, and perhaps no more than that."""

    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        if not getattr(request.user, "is_staff", False):
            return redirect_to_login(request.get_full_path(), reverse("admin:login"))
        return view(request)

    return never_cache(csrf_protect(guarded))


def for_verified(view: View) -> View:
    """For operators who have shown their second factor in this session."""

    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        return view(request) if is_verified(request) else redirect("admin:second_factor")

    return for_operators(guarded)


def is_verified(request: HttpRequest) -> bool:
    return bool(cast(Any, request.user).is_verified())


def ask(request: HttpRequest) -> HttpResponse:
    """To the page where the operator goes on, from wherever they wanted to go to."""
    page = "code" if devices.is_enrolled(cast(User, request.user)) else "enrol"
    return _with_next(request, f"admin:second_factor_{page}")


# --- Between password and pages ---------------------------------------------------------------------
@counted(limits.LOGIN)
@for_operators
def code(request: HttpRequest) -> HttpResponse:
    if devices.suffices(request):
        return redirect(_next(request))
    form = CodeForm(request, *_sent(request))
    if form.is_valid():
        _begin_session(request, form.device)
        return redirect(_next(request))
    return as_told(_page(request, "code", title="Second factor", form=form), form.problem)


@counted(limits.LOGIN)
@for_operators
def enrol(request: HttpRequest) -> HttpResponse:
    """A first device, or another one in its place."""
    user = cast(User, request.user)
    if devices.is_enrolled(user) and not is_verified(request):
        return ask(request)
    key = request.session.setdefault(KEY, default_key())
    form = EnrolForm(request, key, *_sent(request))
    if form.is_valid():
        _begin_session(request, form.device)
        request.session[CODES] = form.recovery_codes
        return _with_next(request, "admin:second_factor_codes")
    device = TOTPDevice(user=user, key=key)
    page = _page(
        request,
        "enrol",
        title="Set up your second factor",
        form=form,
        qr_code=_qr_code(device.config_url),
        secret=_secret(device),
        is_optional=devices.suffices(request),
    )
    return as_told(page, form.problem)


@for_verified
def codes(request: HttpRequest) -> HttpResponse:
    """The recovery codes, once."""
    made = request.session.pop(CODES, None)
    if made is None:
        return redirect("admin:second_factor")
    return _page(request, "codes", title="Recovery codes", codes=made, go_on=_next(request))


# --- Looking after it -------------------------------------------------------------------------------
def overview(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    return _page(
        request,
        "overview",
        title="Second factor",
        is_enrolled=devices.is_enrolled(user),
        codes_left=devices.recovery_codes_left(user),
        is_optional=not settings.ADMIN_OTP,
    )


@for_verified
@require_POST
def renew(request: HttpRequest) -> HttpResponse:
    request.session[CODES] = devices.renew_codes(cast(User, request.user))
    return redirect("admin:second_factor_codes")


@for_verified
@require_POST
def remove(request: HttpRequest) -> HttpResponse:
    if not settings.ADMIN_OTP:
        devices.remove_own(cast(User, request.user))
    return redirect("admin:second_factor")


def urls() -> list[URLPattern]:
    return [
        path("second-factor/", admin.site.admin_view(overview), name="second_factor"),
        path("second-factor/code/", code, name="second_factor_code"),
        path("second-factor/enrol/", enrol, name="second_factor_enrol"),
        path("second-factor/codes/", codes, name="second_factor_codes"),
        path("second-factor/renew/", renew, name="second_factor_renew"),
        path("second-factor/remove/", remove, name="second_factor_remove"),
    ]


# --- How they are made ------------------------------------------------------------------------------
def _begin_session(request: HttpRequest, device: Any) -> None:
    """Anew: who knows the cookie of a session that had only shown a password gains nothing."""
    user: Any = request.user
    auth.logout(request)
    user.otp_device = device  # what django_otp then writes into the session
    people.begin_session(request, user)


def _sent(request: HttpRequest) -> tuple[Any, ...]:
    return (request.POST,) if request.method == "POST" else ()


def _page(request: HttpRequest, name: str, **context: Any) -> TemplateResponse:
    return TemplateResponse(
        request, f"admin/second_factor/{name}.html", admin.site.each_context(request) | context
    )


def _next(request: HttpRequest) -> str:
    """Where the operator wanted to go to, if that is here."""
    wanted = request.GET.get(REDIRECT_FIELD_NAME, "")
    is_here = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, request.is_secure())
    return wanted if is_here else reverse("admin:index")


def _with_next(request: HttpRequest, page: str) -> HttpResponse:
    return redirect(f"{reverse(page)}?{urlencode({REDIRECT_FIELD_NAME: _next(request)})}")


def _qr_code(text: str) -> str:
    """Dark on white whatever the theme, or phones do not read it."""
    picture = segno.make(text, micro=False).svg_inline(
        scale=4, light="white", svgclass=None, lineclass=None, title="QR code of the secret"
    )
    return mark_safe(picture)  # noqa: S308  # the text is in it as a picture


def _secret(device: TOTPDevice) -> str:
    """As apps take it when it is typed, in groups of four."""
    text = b32encode(device.bin_key).decode()
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))
