"""The ledger: the only package that moves money. Other packages import from here alone.

`submit` commits a command (committer.py); `inbox` decides accepted commands later; `verify` and `checkpoints`
prove the books.
"""

from typing import Final

from wallets.ledger.commands import (
    COMMANDS,
    PERSON,
    CaptureHold,
    Command,
    Deposit,
    MakeTransfer,
    PlaceHold,
    Reverse,
    VoidHold,
)
from wallets.ledger.committer import submit, submit_all, submit_atomically
from wallets.ledger.decisions import Posted
from wallets.ledger.history import Balance, Statement, balance_at, balance_now, statement
from wallets.ledger.lookups import hold_to_end, holds_by_id, original, owner_filter
from wallets.ledger.reader import Reversals, read_operation, read_reversals, read_transfer, read_wallet
from wallets.ledger.rules import HoldState
from wallets.ledger.tables import PENDING, Record, database_clock, placed_hold, to_record
from wallets.ledger.wallet_changes import MAX_METADATA_BYTES, WalletUpdate, change_wallet
from wallets.ledger.wallets import (
    Opening,
    note_opening,
    open_wallet,
    require_fitting_limits,
)

# Modules that other packages may import as a whole, loaded at their import: `checkpoints` needs cryptography,
# which takes 6 MB of each worker.
MODULES: Final = (
    "checkpoints",
    "consistent_read",
    "expiry",
    "inbox",
    "inbox_failures",
    "keys",
    "verify",
)

__all__ = [
    "COMMANDS",
    "MAX_METADATA_BYTES",
    "MODULES",
    "PENDING",
    "PERSON",
    "Balance",
    "CaptureHold",
    "Command",
    "Deposit",
    "HoldState",
    "MakeTransfer",
    "Opening",
    "PlaceHold",
    "Posted",
    "Record",
    "Reversals",
    "Reverse",
    "Statement",
    "VoidHold",
    "WalletUpdate",
    "balance_at",
    "balance_now",
    "change_wallet",
    "database_clock",
    "hold_to_end",
    "holds_by_id",
    "note_opening",
    "open_wallet",
    "original",
    "owner_filter",
    "placed_hold",
    "read_operation",
    "read_reversals",
    "read_transfer",
    "read_wallet",
    "require_fitting_limits",
    "statement",
    "submit",
    "submit_all",
    "submit_atomically",
    "to_record",
]
