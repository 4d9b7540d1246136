"""Changes wallets: their names, status, limits and owner. Each change is one transaction, and is recorded."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from decimal import Decimal
from itertools import count
from typing import Any, Final
from uuid import UUID

import orjson
from django.db import DEFAULT_DB_ALIAS, transaction
from uuid_utils.compat import uuid7

from wallets import money
from wallets.database_retry import retry_until_deadline
from wallets.ledger import rules
from wallets.ledger.decisions import CLOCK_TICK, canonical_json
from wallets.ledger.tables import Tables
from wallets.ledger.wallets import unique_external_id
from wallets.models import Wallet, WalletChange
from wallets.problems import (
    BalanceLimitExceeded,
    FieldError,
    OverdraftLimitExceeded,
    Problem,
    ValidationError,
    WalletClosed,
    WalletNotEmpty,
    WalletNotFound,
)

MAX_METADATA_BYTES: Final = 4096  # as JSON
UNCHANGED: Final[Any] = object()
Changes = dict[str, tuple[Any, Any]]  # the old and the new value, by field


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletUpdate:
    """A change of a wallet; a field with UNCHANGED stays as it is. `metadata` is a merge patch (RFC 7396)."""

    external_id: str | None = UNCHANGED
    label: str = UNCHANGED
    metadata: dict[str, Any] = UNCHANGED
    status: str = UNCHANGED
    overdraft_limit: Decimal = UNCHANGED
    max_balance: Decimal | None = UNCHANGED
    owner_id: int | None = UNCHANGED
    actor: str = ""
    reason: str = ""

    def given(self) -> dict[str, Any]:
        """Return the new values by field."""
        return {
            name: value
            for name in (field.name for field in fields(self))
            if name not in ("actor", "reason") and (value := getattr(self, name)) is not UNCHANGED
        }


def change_wallet(
    wallet_id: UUID, change: WalletUpdate, precondition: Callable[[Wallet], None] = lambda _: None
) -> Wallet:
    """Change the wallet and record the actor and the reason.

    `precondition` is called with the locked wallet and raises to refuse the change. Raises WalletNotFound,
    WalletClosed (a closed wallet cannot change), WalletNotEmpty (only an empty wallet can be closed),
    ExternalIdTaken, OverdraftLimitExceeded or BalanceLimitExceeded (the balance is beyond the new limit), or
    ValidationError (a limit has too many fraction digits, or the merged metadata is too long).
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
    with unique_external_id(), transaction.atomic():
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
        if refusal := _refusal(wallet, {name: new for name, (_, new) in changes.items()}):
            raise refusal
        for name, (_, new) in changes.items():
            setattr(wallet, name, new)
        wallet.updated_at = max(now, wallet.updated_at + CLOCK_TICK)
        wallet.save(update_fields=[*changes, "updated_at"])
        WalletChange.objects.create(
            id=change_id,
            wallet=wallet,
            changes=_as_json(changes, wallet.currency),
            actor=change.actor,
            reason=change.reason,
            created_at=wallet.updated_at,
        )
    return wallet


def _differences(wallet: Wallet, change: WalletUpdate) -> Changes:
    given = change.given()
    if "metadata" in given:
        given["metadata"] = merge_patch(wallet.metadata, given["metadata"])
    changes = {name: (getattr(wallet, name), new) for name, new in given.items()}
    return {name: (old, new) for name, (old, new) in changes.items() if not _is_equal(old, new)}


def _is_equal(old: Any, new: Any) -> bool:
    return canonical_json(old) == canonical_json(new) if isinstance(new, dict) else bool(old == new)


def _as_json(changes: Changes, currency: str) -> dict[str, list[Any]]:
    return {
        name: [
            money.format_amount(value, currency) if isinstance(value, Decimal) else value for value in values
        ]
        for name, values in changes.items()
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


def _refusal(wallet: Wallet, new: dict[str, Any]) -> Problem | None:
    if wallet.status == Wallet.Status.CLOSED:
        return WalletClosed("A closed wallet cannot be changed.")
    if new.get("status") == Wallet.Status.CLOSED and (wallet.balance or wallet.held):
        return WalletNotEmpty()
    if len(orjson.dumps(new.get("metadata", {}))) > MAX_METADATA_BYTES:
        detail = f"at most {MAX_METADATA_BYTES} bytes of JSON, with the members that stay"
        return ValidationError(errors=[FieldError("metadata", "too_long", detail)])
    return _limit_refusal(wallet, new.get("overdraft_limit"), new.get("max_balance"))


def _limit_refusal(
    wallet: Wallet, overdraft_limit: Decimal | None, max_balance: Decimal | None
) -> Problem | None:
    """Return the refusal of new limits; None stands for a limit that does not change or is removed."""
    for name, limit in (("overdraftLimit", overdraft_limit), ("maxBalance", max_balance)):
        if limit is not None and not money.fits(limit, wallet.currency):
            return rules.amount_does_not_fit(name, wallet.currency)
    if overdraft_limit is not None and wallet.balance - wallet.held < -overdraft_limit:
        return OverdraftLimitExceeded()
    if max_balance is not None and wallet.balance > max_balance:
        return BalanceLimitExceeded("The balance of the wallet exceeds the new maximum balance.")
    return None
