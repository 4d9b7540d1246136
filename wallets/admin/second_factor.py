"""Pages on which an operator enters, sets up and manages a second factor."""

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
from wallets.access.attempts import counted, with_problem_status
from wallets.admin.attempts import CodeForm, EnrolForm
from wallets.models import User

View = Callable[[HttpRequest], HttpResponse]

# The new secret is stored in the session: another person with the same password gets another secret.
NEW_KEY_IN_SESSION: Final = "second_factor_key"
NEW_CODES_IN_SESSION: Final = "recovery_codes"


# --- Access -----------------------------------------------------------------------------------------
def require_password(view: View) -> View:
    """Decorate a view for operators who have entered their password, with or without a second factor."""

    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        if not getattr(request.user, "is_staff", False):
            return redirect_to_login(request.get_full_path(), reverse("admin:login"))
        return view(request)

    return never_cache(csrf_protect(guarded))


def require_second_factor(view: View) -> View:
    """Decorate a view for operators who have entered their second factor in this session."""

    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        return view(request) if is_verified(request) else redirect("admin:second_factor")

    return require_password(guarded)


def is_verified(request: HttpRequest) -> bool:
    return bool(cast(Any, request.user).is_verified())


def redirect_to_next_step(request: HttpRequest) -> HttpResponse:
    """Redirect to the page that asks for a code, or to the page that sets up the second factor."""
    page = "code" if devices.is_enrolled(cast(User, request.user)) else "enrol"
    return _with_next(request, f"admin:second_factor_{page}")


# --- After the password -----------------------------------------------------------------------------
@counted(limits.LOGIN)
@require_password
def code(request: HttpRequest) -> HttpResponse:
    if devices.has_required_factor(request):
        return redirect(_next(request))
    form = CodeForm(request, *_form_data(request))
    if form.is_valid():
        _begin_session(request, form.device)
        return redirect(_next(request))
    return with_problem_status(_render(request, "code", title="Second factor", form=form), form.problem)


@counted(limits.LOGIN)
@require_password
def enrol(request: HttpRequest) -> HttpResponse:
    """Set up a first device, or replace the current one."""
    user = cast(User, request.user)
    if devices.is_enrolled(user) and not is_verified(request):
        return redirect_to_next_step(request)
    key = request.session.setdefault(NEW_KEY_IN_SESSION, default_key())
    form = EnrolForm(request, key, *_form_data(request))
    if form.is_valid():
        _begin_session(request, form.device)
        request.session[NEW_CODES_IN_SESSION] = form.recovery_codes
        return _with_next(request, "admin:second_factor_codes")
    device = TOTPDevice(user=user, key=key)
    page = _render(
        request,
        "enrol",
        title="Set up your second factor",
        form=form,
        qr_code=_qr_code(device.config_url),
        secret=_format_secret(device),
        is_optional=devices.has_required_factor(request),
    )
    return with_problem_status(page, form.problem)


@require_second_factor
def codes(request: HttpRequest) -> HttpResponse:
    """Show the new recovery codes once."""
    new_codes = request.session.pop(NEW_CODES_IN_SESSION, None)
    if new_codes is None:
        return redirect("admin:second_factor")
    return _render(request, "codes", title="Recovery codes", codes=new_codes, next_url=_next(request))


# --- Management -------------------------------------------------------------------------------------
def overview(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    return _render(
        request,
        "overview",
        title="Second factor",
        is_enrolled=devices.is_enrolled(user),
        codes_left=devices.recovery_codes_left(user),
        is_optional=not settings.ADMIN_OTP,
    )


@require_second_factor
@require_POST
def renew(request: HttpRequest) -> HttpResponse:
    request.session[NEW_CODES_IN_SESSION] = devices.renew_codes(cast(User, request.user))
    return redirect("admin:second_factor_codes")


@require_second_factor
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


# --- Helpers ----------------------------------------------------------------------------------------
def _begin_session(request: HttpRequest, device: Any) -> None:
    """Begin a new session: an attacker with the old session's cookie must not be verified by this code."""
    user: Any = request.user
    auth.logout(request)
    user.otp_device = device  # django_otp stores it in the session
    people.begin_session(request, user)


def _form_data(request: HttpRequest) -> tuple[Any, ...]:
    return (request.POST,) if request.method == "POST" else ()


def _render(request: HttpRequest, name: str, **context: Any) -> TemplateResponse:
    return TemplateResponse(
        request, f"admin/second_factor/{name}.html", admin.site.each_context(request) | context
    )


def _next(request: HttpRequest) -> str:
    """Return the requested next URL if it belongs to this site, else the start page's."""
    url = request.GET.get(REDIRECT_FIELD_NAME, "")
    is_same_site = url_has_allowed_host_and_scheme(url, {request.get_host()}, request.is_secure())
    return url if is_same_site else reverse("admin:index")


def _with_next(request: HttpRequest, page: str) -> HttpResponse:
    return redirect(f"{reverse(page)}?{urlencode({REDIRECT_FIELD_NAME: _next(request)})}")


def _qr_code(text: str) -> str:
    """Return an SVG picture, dark on white in every theme: phones do not read inverted codes."""
    picture = segno.make(text, micro=False).svg_inline(
        scale=4, light="white", svgclass=None, lineclass=None, title="QR code of the secret"
    )
    return mark_safe(picture)  # noqa: S308  # segno draws `text`; no markup of it is in the picture


def _format_secret(device: TOTPDevice) -> str:
    """Return the secret in Base32, which authenticator apps accept, in groups of four characters."""
    text = b32encode(device.bin_key).decode()
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))
