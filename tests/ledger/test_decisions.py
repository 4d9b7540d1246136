"""A refusal is recorded; it changes the time of its wallet and nothing else."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from wallets.ledger.commands import Withdraw
from wallets.ledger.decisions import CLOCK_TICK, Decisions, RecordedOperations
from wallets.ledger.rules import LedgerState, WalletState
from wallets.problems import InsufficientFunds

NOW = datetime(2026, 11, 29, tzinfo=UTC)
WALLET = WalletState(
    id=UUID(int=1),
    currency="EUR",
    balance=Decimal("10.00"),
    held=Decimal(0),
    overdraft_limit=Decimal(0),
    max_balance=None,
    sequence=3,
    status="ACTIVE",
    updated_at=NOW + timedelta(seconds=1),
)


def test_refusal_is_recorded_and_changes_only_the_time() -> None:
    decisions = Decisions(LedgerState({WALLET.id: WALLET}, {}, {}), RecordedOperations(), {}, NOW, {})
    command = Withdraw(wallet_id=WALLET.id, amount=Decimal("10.01"))
    outcome = decisions.decide(command)
    assert isinstance(outcome, InsufficientFunds)
    assert outcome.operation_id == command.id
    later = WALLET.updated_at + CLOCK_TICK  # the clock of the database is behind the wallet here
    assert decisions.state == LedgerState({WALLET.id: replace(WALLET, updated_at=later)}, {}, {})
    assert [(row.id, row.status, row.created_at) for row in decisions.new_rows] == [
        (command.id, "REJECTED", later)
    ]
