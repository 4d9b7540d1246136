"""What an operator has beside a password: an app on the phone that makes codes, and recovery codes on paper.

Both or neither. A code counts once, and is checked under the device's lock: of two requests with the same
one, the second fails.
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
WRONG: Final = "This code is wrong, or was used before."
_OF_APP: Final = re.compile(r"[0-9]{6}")  # a recovery code has eight characters


class CodeRefused(Exception):
    """Why."""


# --- Whether it is there ----------------------------------------------------------------------------
def is_enrolled(user: User) -> bool:
    return bool(TOTPDevice.objects.filter(user=user, confirmed=True).exists())


def suffices(request: HttpRequest) -> bool:
    """Whether this session has shown all that there is to show."""
    user: Any = request.user
    return bool(user.is_verified()) or not (settings.ADMIN_OTP or is_enrolled(user))


def recovery_codes_left(user: User) -> int:
    return int(StaticToken.objects.filter(device__user=user).count())


# --- Showing it -------------------------------------------------------------------------------------
def verify(user: User, code: str) -> Any:
    """The device that made the code. Raises CodeRefused.

    Only the one that can have made it is asked: each counts its wrong codes, and makes everybody wait longer
    after every one.
    """
    kind = TOTPDevice if _OF_APP.fullmatch(code) else StaticDevice
    with transaction.atomic():
        device = kind.objects.select_for_update().filter(user=user, confirmed=True).first()
        if device is None:
            raise CodeRefused(WRONG)
        may_try, why_not = device.verify_is_allowed()
        is_right = device.verify_token(code)
    # Raised after the commit: a wrong code has to count.
    if not may_try:
        wait = math.ceil((why_not["locked_until"] - timezone.now()).total_seconds())
        raise CodeRefused(f"Too many wrong codes. Try again in {max(1, wait)} s.")
    if not is_right:
        raise CodeRefused(WRONG)
    return device


# --- Setting it up, and taking it away --------------------------------------------------------------
def enrol(request: HttpRequest, key: str, code: str) -> tuple[TOTPDevice, list[str]]:
    """A new device in place of those there are, and its recovery codes. Raises CodeRefused.

    The code proves that the app has the key. Whoever has a device already must have shown it in this session:
    a password alone is not enough to replace it.
    """
    user: Any = request.user
    with transaction.atomic():
        _lock(user)
        old = list(devices_for_user(user))
        if old and user.otp_device not in old:
            raise CodeRefused("There is a second factor already. Log in with it first.")
        device = TOTPDevice.objects.create(user=user, name="app", key=key)
        if not device.verify_token(code):
            raise CodeRefused(WRONG)
        for one in old:
            one.delete()
        codes = _make_codes(StaticDevice.objects.create(user=user, name="recovery codes"))
        _log(user, "Replaced the second factor" if old else "Set up a second factor")
    return device, codes


def renew_codes(user: User) -> list[str]:
    """New recovery codes; the old ones end."""
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
    """Whether there was one. Sessions that have shown it count as not having done so."""
    with transaction.atomic():
        _lock(user)
        old = list(devices_for_user(user, confirmed=None))
        for device in old:
            device.delete()
    return bool(old)


def _lock(user: User) -> None:
    """One change of an operator's devices at a time: the first has no device yet whose lock would do."""
    User.objects.select_for_update(no_key=True).get(pk=user.pk)


def _make_codes(device: StaticDevice) -> list[str]:
    codes = [StaticToken.random_token() for _ in range(RECOVERY_CODE_COUNT)]
    StaticToken.objects.bulk_create(StaticToken(device=device, token=code) for code in codes)
    return codes


def _log(user: User, what: str) -> None:
    LogEntry.objects.log_actions(user.pk, [user], CHANGE, what, single_object=True)
