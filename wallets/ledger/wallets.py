"""Opens wallets, each in one transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from psycopg.errors import UniqueViolation
from uuid_utils.compat import uuid7

from wallets import money
from wallets.database_retry import retry_until_deadline
from wallets.ledger import rules
from wallets.ledger.decisions import canonical_json
from wallets.models import Wallet, WalletChange
from wallets.problems import ExternalIdTaken, IdempotencyKeyReused


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A wallet to open. With an `id` that the client chose, a second request is a replay."""

    currency: str
    id: UUID | None = None
    external_id: str | None = None
    label: str = ""
    overdraft_limit: Decimal = Decimal(0)
    max_balance: Decimal | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    owner_id: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the value that a replay is compared with: equal for equal requests and amounts."""
        # Absent without one, as in rows from before there were external ids.
        external_id = {} if self.external_id is None else {"external_id": self.external_id}
        return external_id | {
            "currency": self.currency,
            "label": self.label,
            "overdraft_limit": money.format_amount(self.overdraft_limit, self.currency),
            "max_balance": None
            if self.max_balance is None
            else money.format_amount(self.max_balance, self.currency),
            "metadata": self.metadata,
        }


@dataclass(frozen=True, slots=True)
class Opened:
    wallet: Wallet
    replayed: bool


def open_wallet(opening: Opening) -> Opened:
    """Open an empty wallet.

    Raises ValidationError if a limit has too many fraction digits for the currency, IdempotencyKeyReused if
    the id belongs to a wallet that a different request opened, or ExternalIdTaken.
    """
    require_fitting_limits(opening)
    fields = {
        "currency": opening.currency,
        "external_id": opening.external_id,
        "label": opening.label,
        "overdraft_limit": opening.overdraft_limit,
        "max_balance": opening.max_balance,
        "metadata": opening.metadata,
        "owner_id": opening.owner_id,
    }
    if (chosen := opening.id) is None:
        # The id is made before the first attempt, so that a retry finds the wallet of a commit in doubt.
        new = uuid7()
        return Opened(retry_until_deadline(lambda: _get_or_open(new, fields)[0]), False)
    asked = opening.as_json()
    wallet, is_new = retry_until_deadline(lambda: _get_or_open(chosen, fields | {"opened_with": asked}))
    if is_new:
        return Opened(wallet, replayed=False)
    is_foreign = wallet.owner_id != opening.owner_id  # opened by a client with another owner restriction
    if (
        is_foreign
        or wallet.opened_with is None
        or canonical_json(wallet.opened_with) != canonical_json(asked)
    ):
        raise IdempotencyKeyReused
    return Opened(_as_opened(wallet, fields), replayed=True)


def _get_or_open(wallet_id: UUID, fields: dict[str, Any]) -> tuple[Wallet, bool]:
    with unique_external_id(), transaction.atomic():
        wallet, is_new = Wallet.objects.get_or_create(id=wallet_id, defaults=fields)
        if is_new:
            note_opening(wallet)
    return wallet, is_new


@contextmanager
def unique_external_id() -> Iterator[None]:
    """Raise ExternalIdTaken if the transaction fails because another wallet of the owner has the id."""
    try:
        yield
    except IntegrityError as error:
        cause = error.__cause__
        if isinstance(cause, UniqueViolation) and cause.diag.constraint_name == "wallet_external_id_unique":
            raise ExternalIdTaken from None
        raise


def note_opening(wallet: Wallet) -> None:
    """Record the opening for subscribers, in the transaction that opens the wallet."""
    opened_with = Opening(
        currency=wallet.currency,
        external_id=wallet.external_id,
        label=wallet.label,
        overdraft_limit=wallet.overdraft_limit,
        max_balance=wallet.max_balance,
        metadata=wallet.metadata,
    )
    WalletChange.objects.create(
        id=wallet.id,
        wallet=wallet,
        type=WalletChange.Type.OPENED,
        changes=opened_with.as_json(),
        created_at=wallet.created_at,
    )


def require_fitting_limits(opening: Opening) -> None:
    """Raise ValidationError if a limit has more fraction digits than the currency."""
    for name, amount in (("overdraftLimit", opening.overdraft_limit), ("maxBalance", opening.max_balance)):
        if amount is not None and not money.fits(amount, opening.currency):
            raise rules.amount_does_not_fit(name, opening.currency)


def _as_opened(wallet: Wallet, fields: dict[str, Any]) -> Wallet:
    """Return the wallet as the first response showed it, whatever has happened to it since."""
    first = Wallet(id=wallet.id, created_at=wallet.created_at, updated_at=wallet.created_at, **fields)
    first.balance = first.held = Decimal(0)
    first.sequence, first.status = 0, Wallet.Status.ACTIVE
    return first
