"""Opens wallets and changes their label, metadata and status. Each is one transaction."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Any, Final
from uuid import UUID

import orjson
from django.db import DEFAULT_DB_ALIAS, IntegrityError, transaction
from psycopg.errors import UniqueViolation
from uuid_utils.compat import uuid7

from wallets import money
from wallets.database_retry import retry_until_deadline
from wallets.ledger import rules
from wallets.ledger.decisions import CLOCK_TICK, canonical_json
from wallets.ledger.tables import Tables
from wallets.models import Wallet, WalletChange
from wallets.problems import (
    ExternalIdTaken,
    FieldError,
    IdempotencyKeyReused,
    Problem,
    ValidationError,
    WalletClosed,
    WalletNotEmpty,
    WalletNotFound,
)

MAX_METADATA_BYTES: Final = 4096  # as JSON


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
    with _unique_external_id(), transaction.atomic():
        wallet, is_new = Wallet.objects.get_or_create(id=wallet_id, defaults=fields)
        if is_new:
            note_opening(wallet)
    return wallet, is_new


@contextmanager
def _unique_external_id() -> Iterator[None]:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletUpdate:
    """A change of a wallet; a field with None stays as it is. An empty `external_id` removes it.

    `metadata` is a merge patch (RFC 7396).
    """

    external_id: str | None = None
    label: str | None = None
    metadata: dict[str, Any] | None = None
    status: str | None = None
    actor: str = ""
    reason: str = ""


def change_wallet(
    wallet_id: UUID, change: WalletUpdate, precondition: Callable[[Wallet], None] = lambda _: None
) -> Wallet:
    """Change the wallet and record the actor and the reason.

    `precondition` is called with the locked wallet and raises to refuse the change. Raises WalletNotFound,
    WalletClosed (a closed wallet cannot change), WalletNotEmpty (only an empty wallet can be closed) or
    ExternalIdTaken, ValidationError (the merged metadata is too long).
    """
    change_id = uuid7()  # made before the first attempt, so that a retry finds a commit in doubt
    attempts = count()
    return retry_until_deadline(
        lambda: _change(wallet_id, change, precondition, change_id, is_retry=next(attempts) > 0)
    )


def _change(
    wallet_id: UUID,
    change: WalletUpdate,
    precondition: Callable[[Wallet], None],
    change_id: UUID,
    is_retry: bool,
) -> Wallet:
    with _unique_external_id(), transaction.atomic():
        locked = Wallet.objects.select_for_update(no_key=True).filter(id=wallet_id)
        wallet = locked.with_expired().first()
        if wallet is None:
            raise WalletNotFound
        if is_retry and WalletChange.objects.filter(wallet_id=wallet_id, id=change_id).exists():
            return wallet
        precondition(wallet)  # the wallet as a reader sees it, before expired holds are recorded
        tables = Tables(DEFAULT_DB_ALIAS)
        now = tables.clock()
        if wallet.next_expiry_at is not None and wallet.next_expiry_at <= now:
            tables.expire_holds([wallet_id], now)
            wallet = locked.get()
        changes = _differences(wallet, change)
        if not changes:
            return wallet
        if refusal := _refusal(wallet, change, changes):
            raise refusal
        for name, (_, new) in changes.items():
            setattr(wallet, name, new)
        wallet.updated_at = max(now, wallet.updated_at + CLOCK_TICK)
        wallet.save(update_fields=[*changes, "updated_at"])
        WalletChange.objects.create(
            id=change_id,
            wallet=wallet,
            changes=changes,
            actor=change.actor,
            reason=change.reason,
            created_at=wallet.updated_at,
        )
    return wallet


def _differences(wallet: Wallet, change: WalletUpdate) -> dict[str, tuple[Any, Any]]:
    merged = None if change.metadata is None else merge_patch(wallet.metadata, change.metadata)
    given = {
        "external_id": change.external_id,
        "label": change.label,
        "metadata": merged,
        "status": change.status,
    }
    asked = {name: new for name, new in given.items() if new is not None}
    if "external_id" in asked:
        asked["external_id"] = asked["external_id"] or None
    now = {name: getattr(wallet, name) for name in asked}
    return {
        name: (now[name], new)
        for name, new in asked.items()
        if canonical_json(new) != canonical_json(now[name])
    }


def merge_patch(target: Any, patch: Any) -> Any:
    """Return the JSON value `target` after the merge patch (RFC 7396, 2): null removes a member."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def _refusal(wallet: Wallet, change: WalletUpdate, changes: dict[str, tuple[Any, Any]]) -> Problem | None:
    if wallet.status == Wallet.Status.CLOSED:
        return WalletClosed("A closed wallet cannot be changed.")
    if change.status == Wallet.Status.CLOSED and (wallet.balance or wallet.held):
        return WalletNotEmpty()
    _, metadata = changes.get("metadata", (None, {}))
    if len(orjson.dumps(metadata)) > MAX_METADATA_BYTES:
        detail = f"at most {MAX_METADATA_BYTES} bytes of JSON, with the members that stay"
        return ValidationError(errors=[FieldError("metadata", "too_long", detail)])
    return None
