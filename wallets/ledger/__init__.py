"""The ledger: the only package that moves money. Other packages import from here alone.

`submit` commits a command (committer.py); `inbox` decides accepted commands later; `verify` and `checkpoints`
prove the books.
"""

from wallets.ledger import checkpoints, expiry, inbox, inbox_failures, keys, verify
from wallets.ledger.checkpoints import CheckpointError, Comparison
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
from wallets.ledger.consistent_read import NOTHING, Snapshot
from wallets.ledger.decisions import Posted
from wallets.ledger.history import Balance, Statement, balance_at, balance_now, statement
from wallets.ledger.inbox_failures import CannotBeRejected, NotSetAside
from wallets.ledger.lookups import holds_by_id, original, owner_filter, wallet_of_hold
from wallets.ledger.reader import read_operation, read_transfer, read_wallet
from wallets.ledger.rules import HoldState
from wallets.ledger.tables import PENDING, Record, database_clock, to_record
from wallets.ledger.verify import Verification, last_check
from wallets.ledger.wallets import (
    Opening,
    WalletUpdate,
    change_wallet,
    note_opening,
    open_wallet,
    require_fitting_limits,
)

__all__ = [
    "COMMANDS",
    "NOTHING",
    "PENDING",
    "PERSON",
    "Balance",
    "CannotBeRejected",
    "CaptureHold",
    "CheckpointError",
    "Command",
    "Comparison",
    "Deposit",
    "HoldState",
    "MakeTransfer",
    "NotSetAside",
    "Opening",
    "PlaceHold",
    "Posted",
    "Record",
    "Reverse",
    "Snapshot",
    "Statement",
    "Verification",
    "VoidHold",
    "WalletUpdate",
    "balance_at",
    "balance_now",
    "change_wallet",
    "checkpoints",
    "database_clock",
    "expiry",
    "holds_by_id",
    "inbox",
    "inbox_failures",
    "keys",
    "last_check",
    "note_opening",
    "open_wallet",
    "original",
    "owner_filter",
    "read_operation",
    "read_transfer",
    "read_wallet",
    "require_fitting_limits",
    "statement",
    "submit",
    "submit_all",
    "submit_atomically",
    "to_record",
    "verify",
    "wallet_of_hold",
]
