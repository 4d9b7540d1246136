"""Verifies e-mail addresses. An account can be paid by its address after its owner follows a mailed link.

Otherwise the first account that signed up with an address would receive the payments to it.
"""

from typing import Any, Final

from django.conf import settings
from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.db.models import F
from django.urls import reverse

from wallets.access import limits, mails
from wallets.models import User


class _Tokens(PasswordResetTokenGenerator):
    """Tokens for verification alone, valid for three days, until use or until the address changes."""

    key_salt = "wallets.access.verification"

    def _make_hash_value(self, user: Any, timestamp: int) -> str:
        return repr((user.pk, user.email, user.verified_email, timestamp))


_TOKENS: Final = _Tokens()


def send_link(user: User) -> None:
    """Mail the link to the account's address if mail is configured."""
    if settings.MAIL is not None:
        mails.in_background(lambda: mails.send(user, "verify", path_for(user)))


def send_link_again(user: User) -> None:
    """Mail the link again. Raises TooManyRequests."""
    limits.require(limits.RESET, f"verify:{user.pk}")
    send_link(user)


def path_for(user: User) -> str:
    return reverse("verify_email", args=[user.pk, _TOKENS.make_token(user)])


def find(user_id: int, token: str) -> User | None:
    """Return the account of the link; None if the link has expired, was used or never existed."""
    user = User.objects.filter(pk=user_id, is_active=True).exclude(email="").first()
    return user if user and _TOKENS.check_token(user, token) else None


def verify(user: User) -> bool:
    """Record the address as verified; return False if an operator has changed it meanwhile."""
    unchanged = User.objects.filter(pk=user.pk, email=user.email, is_active=True)
    return bool(unchanged.update(verified_email=F("email")))
