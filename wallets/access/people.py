"""People: they sign up with a name, an e-mail address and a password, and have a wallet."""

from typing import Any, Final
from uuid import UUID

from axes.handlers.proxy import AxesProxyHandler
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.db.models import Case, Q, When
from django.http import HttpRequest
from uuid_utils.compat import uuid7

from wallets.access import limits, verification
from wallets.access.rights import Principal
from wallets.database_retry import retry_until_deadline
from wallets.ledger import MakeTransfer, keys, note_opening, owner_filter
from wallets.models import InboxEntry, Operation, User, Wallet
from wallets.problems import (
    EmailTaken,
    FieldError,
    InvalidCredentials,
    Problem,
    ValidationError,
    WalletNotFound,
)

MAX_NAME: Final = 150  # characters, as the table has it
MAX_EMAIL: Final = 254
MAX_PASSWORD: Final = 1024


def is_email(text: str) -> bool:
    """Printable ASCII alone: other letters that look alike are other people's."""
    try:
        validate_email(text)
    except DjangoValidationError:
        return False
    return text.isascii() and text.isprintable()


# --- Signing up -------------------------------------------------------------------------------------
def sign_up(name: str, email: str, password: str) -> User:
    """A new person, with an empty wallet in the default currency; a link to verify the address is mailed.

    Raises ValidationError where the password is one that others would guess, EmailTaken where somebody has
    the address, as an e-mail address or as a name to log in with, however it is capitalised.
    """
    email = email.lower()
    user = User(username=email, email=email, first_name=name)
    check_password(password, user)
    if retry_until_deadline(lambda: is_taken(email)):
        raise EmailTaken
    user.set_password(password)
    wallet_id = uuid7()  # made before the first attempt: one that was cut off after its commit is found again
    retry_until_deadline(lambda: _create(user, wallet_id))
    verification.send_link(user)
    return user


def check_password(password: str, user: User) -> None:
    """Raises ValidationError."""
    try:
        validate_password(password, user)
    except DjangoValidationError as error:
        found = [FieldError("password", "weak_password", message) for message in error.messages]
        raise ValidationError(errors=found) from None


def is_taken(email: str) -> bool:
    return User.objects.filter(username__iexact=email).exists() or User.objects.by_email(email).exists()


def _create(user: User, wallet_id: UUID) -> None:
    if _was_created(user, wallet_id):
        return
    try:
        with transaction.atomic():
            user.save(force_insert=True)
            note_opening(Wallet.objects.create(id=wallet_id, currency=settings.DEFAULT_CURRENCY, owner=user))
    except IntegrityError:  # somebody was quicker; or we were, and had not heard of it
        if not _was_created(user, wallet_id):
            raise EmailTaken from None


def _was_created(user: User, wallet_id: UUID) -> bool:
    """Whether an earlier attempt did it after all; then the user gets the number that it has."""
    user.pk = Wallet.objects.filter(id=wallet_id).values_list("owner_id", flat=True).first()
    return user.pk is not None


# --- Logging in -------------------------------------------------------------------------------------
def log_in(request: HttpRequest, login: str, password: str) -> User:
    """Begin a session.

    Raises InvalidCredentials, as slowly for a login that nobody has; TooManyRequests where the account was
    locked for the address by wrong passwords.
    """
    user = auth.authenticate(request, username=login, password=password)
    if user is None or is_locked(request, login):
        raise refusal(request)
    begin_session(request, user)
    return user


def is_locked(request: HttpRequest, login: str) -> bool:
    """Asked again after a right password: guesses that came together have all been counted by then."""
    if settings.LOGIN_LOCKOUT is None:
        return False
    request.axes_locked_out = not AxesProxyHandler.is_allowed(request, {"username": login})  # type: ignore[attr-defined]
    return bool(request.axes_locked_out)  # type: ignore[attr-defined]


def begin_session(request: HttpRequest, user: Any) -> None:
    """Under a new key: what was known of the old one is worth nothing."""
    auth.login(request, user, backend="django.contrib.auth.backends.ModelBackend")


def refusal(request: HttpRequest) -> Problem:
    """Why `authenticate` knew nobody."""
    if getattr(request, "axes_locked_out", False) and settings.LOGIN_LOCKOUT:
        return limits.too_many("Too many wrong passwords for this account.", settings.LOGIN_LOCKOUT.seconds)
    return InvalidCredentials()


def account_of(request: HttpRequest, credentials: dict[str, Any] | None) -> str | None:
    """What wrong passwords are counted for: the login without regard to case (AXES_USERNAME_CALLABLE).

    Those that have one upper case are one, as in the index of names: a long s or dotless i is no new guess.
    """
    login = (credentials or {}).get("username")
    return login.upper().lower()[:MAX_EMAIL] if isinstance(login, str) else None


# --- Their wallets ----------------------------------------------------------------------------------
def main_wallet(user: User) -> Wallet | None:
    """The first that they had."""
    assert user.pk is not None  # noqa: S101 - a filter by None would find what nobody owns
    wallets = Wallet.objects.with_expired().filter(owner=user).order_by("created_at", "id")
    return retry_until_deadline(wallets.first)


def wallet_of(email: str, source_id: UUID, caller: Principal, key: str | None = None) -> UUID:
    """Where a transfer from the source to the account with this verified address goes.

    That is the first of its wallets in the source's currency that is not closed. But a repeat under this key,
    as the ledger stores it, goes where the first went, whatever has become of wallets and addresses since. A
    restricted caller's source has to be the owner's.

    Raises WalletNotFound, alike and after the same queries, if there is no such account, its address is not
    verified, it is inactive, or it has no such wallet: a sender needs no more, and a guesser learns no more.
    """
    sent_to = retry_until_deadline(lambda: _sent_to(source_id, caller, key)) if key else None
    own = {} if caller.owner_restriction is None else {"owner": caller.owner_restriction}
    source = Wallet.objects.filter(id=source_id, **own)
    owners = User.objects.by_verified_email(email)
    wallets = Wallet.objects.filter(owner__in=owners, currency__in=source.values("currency"))
    payable = wallets.filter(Q(id=sent_to) | ~Q(status=Wallet.Status.CLOSED))
    by_rank = payable.order_by(Case(When(id=sent_to, then=0), default=1), "created_at", "id")
    found = retry_until_deadline(by_rank.values_list("id", flat=True).first) or sent_to
    if found is None:
        raise WalletNotFound("No account with this verified e-mail address has a wallet of this currency.")
    return found


def _sent_to(source_id: UUID, caller: Principal, key: str) -> UUID | None:
    """Where a transfer under this key went, or will go: it may still wait in the inbox."""
    sent = {"type": MakeTransfer.type, "wallet_id": source_id, **owner_filter(caller.owner_restriction)}
    # Before restricted callers had a namespace, their keys were stored without it.
    keyed = Q(idempotency_key=key) | Q(idempotency_key=keys.as_sent(key), actor=caller.actor)
    places = (Operation.objects, InboxEntry.objects)
    found = (
        place.filter(keyed, **sent).values_list("counterparty_id", flat=True).first() for place in places
    )
    return next((wallet_id for wallet_id in found if wallet_id), None)
