"""Users: sign-up with a name, an e-mail address and a password, login, and their wallets."""

from typing import Any, Final
from unicodedata import normalize
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

# Zero-width non-joiner and joiner: Persian and Indic names need them, and so do some emoji (RFC 5892, A.1).
_JOINERS: Final = {0x200C: None, 0x200D: None}
# In characters.
MAX_NAME: Final = 150
MAX_EMAIL: Final = 254
MAX_PASSWORD: Final = 1024


def is_email(text: str) -> bool:
    """Whether the text is an e-mail address in printable ASCII: other scripts have look-alike letters."""
    try:
        validate_email(text)
    except DjangoValidationError:
        return False
    return text.isascii() and text.isprintable()


def is_name(text: str) -> bool:
    """Whether the text is printable and more than spaces; joiners between letters may be part of it."""
    letters = text.translate(_JOINERS)
    return bool(letters.strip()) and letters.isprintable()


# --- Sign-up ----------------------------------------------------------------------------------------
def sign_up(name: str, email: str, password: str) -> User:
    """Create a user with an empty wallet in the default currency, and mail a link that verifies the address.

    Raises ValidationError for a weak password, or EmailTaken if another account has the address as its e-mail
    address or as its username, in any case.
    """
    email = email.lower()
    user = User(username=email, email=email, first_name=_composed(name))
    check_password(password, user)
    if retry_until_deadline(lambda: is_taken(email)):
        raise EmailTaken
    user.set_password(password)
    wallet_id = uuid7()  # made before the first attempt, so that a retry finds a commit whose result was lost
    retry_until_deadline(lambda: _create(user, wallet_id))
    verification.send_link(user)
    return user


def _composed(name: str) -> str:
    """Return the name in the form NFC, unless a few letters that this form takes apart make it too long."""
    composed = normalize("NFC", name)
    return composed if len(composed) <= MAX_NAME else name


def check_password(password: str, user: User) -> None:
    """Raise ValidationError if the password is too weak for the user."""
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
    except IntegrityError:  # another request was faster, or an earlier attempt of this one committed
        if not _was_created(user, wallet_id):
            raise EmailTaken from None


def _was_created(user: User, wallet_id: UUID) -> bool:
    """Whether an earlier attempt has committed. If so, set the id of the user."""
    user.pk = Wallet.objects.filter(id=wallet_id).values_list("owner_id", flat=True).first()
    return user.pk is not None


# --- Login ------------------------------------------------------------------------------------------
def log_in(request: HttpRequest, login: str, password: str) -> User:
    """Start a session.

    Raises InvalidCredentials, after the same time for an unknown login; TooManyRequests if wrong passwords
    have locked the account for the client's address.
    """
    login = User.normalize_username(login)  # é has two forms; the stored name has this one
    user = auth.authenticate(request, username=login, password=password)
    if user is None or is_locked(request, login):
        raise login_problem(request)
    begin_session(request, user)
    return user


def is_locked(request: HttpRequest, login: str) -> bool:
    """Check the lockout again after a correct password: concurrent wrong ones are counted by then."""
    if settings.LOGIN_LOCKOUT is None:
        return False
    request.axes_locked_out = not AxesProxyHandler.is_allowed(request, {"username": login})  # type: ignore[attr-defined]
    return bool(request.axes_locked_out)  # type: ignore[attr-defined]


def begin_session(request: HttpRequest, user: Any) -> None:
    """Log the user in under a new session key, so that a stolen or planted old key gives no access."""
    auth.login(request, user, backend="django.contrib.auth.backends.ModelBackend")


def login_problem(request: HttpRequest) -> Problem:
    """Return the problem with which a failed `authenticate` is answered."""
    if getattr(request, "axes_locked_out", False) and settings.LOGIN_LOCKOUT:
        return limits.too_many("Too many wrong passwords for this account.", settings.LOGIN_LOCKOUT.seconds)
    return InvalidCredentials()


def lockout_account(request: HttpRequest, credentials: dict[str, Any] | None) -> str | None:
    """Return the normalized login for which wrong passwords are counted (AXES_USERNAME_CALLABLE).

    The unique index of usernames compares upper case too: a long s or a dotless i is the same account.
    """
    login = (credentials or {}).get("username")
    return login.upper().lower()[:MAX_EMAIL] if isinstance(login, str) else None


# --- Wallets of a user ------------------------------------------------------------------------------
def main_wallet(user: User) -> Wallet | None:
    """Return the first wallet of the user."""
    assert user.pk is not None  # noqa: S101 - a filter by None would find wallets without an owner
    wallets = Wallet.objects.with_expired().filter(owner=user).order_by("created_at", "id")
    return retry_until_deadline(wallets.first)


def wallet_of(email: str, source_id: UUID, caller: Principal, key: str | None = None) -> UUID:
    """Return the target of a transfer from the source to the account with this verified address.

    The target is the account's first wallet in the currency of the source that is not closed. `key` is the
    stored idempotency key: a replay returns the target of the first request, even if wallets or addresses
    have changed since. The source of a restricted caller must belong to its owner.

    Raises WalletNotFound, with the same text and after the same queries, if the account does not exist, is
    inactive, has no verified address or has no such wallet. So guesses of addresses reveal nothing more.
    """
    earlier_target = retry_until_deadline(lambda: _earlier_target(source_id, caller, key)) if key else None
    own = {} if caller.owner_restriction is None else {"owner": caller.owner_restriction}
    source = Wallet.objects.filter(id=source_id, **own)
    owners = User.objects.by_verified_email(email)
    wallets = Wallet.objects.filter(owner__in=owners, currency__in=source.values("currency"))
    payable = wallets.filter(Q(id=earlier_target) | ~Q(status=Wallet.Status.CLOSED))
    by_rank = payable.order_by(Case(When(id=earlier_target, then=0), default=1), "created_at", "id")
    found = retry_until_deadline(by_rank.values_list("id", flat=True).first) or earlier_target
    if found is None:
        raise WalletNotFound("No account with this verified e-mail address has a wallet of this currency.")
    return found


def _earlier_target(source_id: UUID, caller: Principal, key: str) -> UUID | None:
    """Return the target of the transfer under this key, which may still be in the inbox."""
    sent = {"type": MakeTransfer.type, "wallet_id": source_id, **owner_filter(caller.owner_restriction)}
    # Keys of restricted clients were stored without a namespace before version 0.7.
    keyed = Q(idempotency_key=key) | Q(idempotency_key=keys.as_sent(key), actor=caller.actor)
    places = (Operation.objects, InboxEntry.objects)
    found = (
        place.filter(keyed, **sent).values_list("counterparty_id", flat=True).first() for place in places
    )
    return next((wallet_id for wallet_id in found if wallet_id), None)
