"""Verified e-mail addresses. Only an account whose owner has followed a mailed link is paid by its address.

Else the account that signed up first with an address would receive what is sent to it.
"""

from typing import Any, Final

from django.conf import settings
from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.db.models import F
from django.urls import reverse

from wallets.access import limits, mails
from wallets.models import User


class _Tokens(PasswordResetTokenGenerator):
    """Tokens for this purpose alone, for three days. One ends when it is used or the address changes."""

    key_salt = "wallets.access.verification"

    def _make_hash_value(self, user: Any, timestamp: int) -> str:
        return repr((user.pk, user.email, user.verified_email, timestamp))


_TOKENS: Final = _Tokens()


def send_link(user: User) -> None:
    """Send the link to the account's address, where mail can be sent."""
    if settings.MAIL is not None:
        mails.in_background(lambda: mails.send(user, "verify", path_for(user)))


def send_link_again(user: User) -> None:
    """Send the link anew. Raises TooManyRequests."""
    limits.require(limits.RESET, f"verify:{user.pk}")
    send_link(user)


def path_for(user: User) -> str:
    return reverse("verify_email", args=[user.pk, _TOKENS.make_token(user)])


def find(user_id: int, token: str) -> User | None:
    """The account that the link was made for; None if the link expired, was used or never existed."""
    user = User.objects.filter(pk=user_id, is_active=True).exclude(email="").first()
    return user if user and _TOKENS.check_token(user, token) else None


def verify(user: User) -> bool:
    """Record that the owner receives mail at the address; False if an operator changed it meanwhile."""
    unchanged = User.objects.filter(pk=user.pk, email=user.email, is_active=True)
    return bool(unchanged.update(verified_email=F("email")))
