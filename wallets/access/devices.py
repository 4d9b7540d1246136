"""The second factor of an operator: an authenticator app, and recovery codes if the app is lost.

A code is valid once. It is checked under the device's lock, so that of two requests with the same code
the second fails.
"""

import math
import re
from typing import Any, Final

from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from django_otp import devices_for_user
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from wallets.models import User

RECOVERY_CODE_COUNT: Final = 10
WRONG_CODE: Final = "This code is wrong, or was used before."
_APP_CODE: Final = re.compile(r"[0-9]{6}")  # a recovery code has eight characters


class CodeRefused(Exception):
    """The code was refused; the text says why."""


# --- State ------------------------------------------------------------------------------------------
def is_enrolled(user: User) -> bool:
    return bool(TOTPDevice.objects.filter(user=user, confirmed=True).exists())


def has_required_factor(request: HttpRequest) -> bool:
    """Whether this session has passed the second factor; True if the operator needs and has none."""
    user: Any = request.user
    return bool(user.is_verified()) or not (settings.ADMIN_OTP or is_enrolled(user))


def recovery_codes_left(user: User) -> int:
    return int(StaticToken.objects.filter(device__user=user).count())


# --- Verification of codes --------------------------------------------------------------------------
def verify(user: User, code: str) -> Any:
    """Return the device that generated the code. Raises CodeRefused.

    Only the device with codes of this form checks it: a device counts wrong codes, and each one prolongs its
    delay.
    """
    kind = TOTPDevice if _APP_CODE.fullmatch(code) else StaticDevice
    with transaction.atomic():
        device = kind.objects.select_for_update().filter(user=user, confirmed=True).first()
        if device is None:
            raise CodeRefused(WRONG_CODE)
        may_try, lock = device.verify_is_allowed()
        is_right = device.verify_token(code)
    # Raised after the commit, so that a wrong code counts.
    if not may_try:
        wait = math.ceil((lock["locked_until"] - timezone.now()).total_seconds())
        raise CodeRefused(f"Too many wrong codes. Try again in {max(1, wait)} s.")
    if not is_right:
        raise CodeRefused(WRONG_CODE)
    return device


# --- Enrolment and removal --------------------------------------------------------------------------
def enrol(request: HttpRequest, key: str, code: str) -> tuple[TOTPDevice, list[str]]:
    """Replace the operator's devices by a new one; return it and its recovery codes. Raises CodeRefused.

    The code proves that the app has the key. An operator with a device must have used it in this session: a
    password alone does not replace it.
    """
    user: Any = request.user
    with transaction.atomic():
        _lock(user)
        old = list(devices_for_user(user))
        if old and user.otp_device not in old:
            raise CodeRefused("This account has a second factor already. Log in with it first.")
        device = TOTPDevice.objects.create(user=user, name="app", key=key)
        if not device.verify_token(code):
            raise CodeRefused(WRONG_CODE)
        for replaced in old:
            replaced.delete()
        codes = _make_codes(StaticDevice.objects.create(user=user, name="recovery codes"))
        _log(user, "Replaced the second factor" if old else "Set up a second factor")
    return device, codes


def renew_codes(user: User) -> list[str]:
    """Create new recovery codes; the old ones become invalid."""
    with transaction.atomic():
        device = StaticDevice.objects.select_for_update().get(user=user, confirmed=True)
        device.token_set.all().delete()
        codes = _make_codes(device)
        _log(user, "Renewed the recovery codes")
    return codes


def remove_own(user: User) -> None:
    with transaction.atomic():
        if remove(user):
            _log(user, "Removed the second factor")


def remove(user: User) -> bool:
    """Remove the second factor; return whether there was one. Existing sessions lose their verification."""
    with transaction.atomic():
        _lock(user)
        old = list(devices_for_user(user, confirmed=None))
        for device in old:
            device.delete()
    return bool(old)


def _lock(user: User) -> None:
    """Serialize changes of an operator's devices by a lock on the user: there may be no device to lock."""
    User.objects.select_for_update(no_key=True).get(pk=user.pk)


def _make_codes(device: StaticDevice) -> list[str]:
    codes = [StaticToken.random_token() for _ in range(RECOVERY_CODE_COUNT)]
    StaticToken.objects.bulk_create(StaticToken(device=device, token=code) for code in codes)
    return codes


def _log(user: User, what: str) -> None:
    LogEntry.objects.log_actions(user.pk, [user], CHANGE, what, single_object=True)
