"""Who may do what: the one place that decides.

A request needs a scope: by what it asks for (NEEDED) and, where it moves money, by what its command does
(SCOPES_OF). Besides, a restricted key sees and moves its owner's wallets alone: others do not exist for it.
Where money moves that is decided under the wallet's lock (wallets/ledger/batch.py), by `Command.within`.
"""

from dataclasses import dataclass
from typing import Any, Final

from wallets.ledger.commands import Command, Reversal
from wallets.models import Wallet
from wallets.problems import Forbidden, WalletNotFound

READ: Final = "wallets:read"
WRITE: Final = "wallets:write"
DEPOSIT: Final = "operations:deposit"
WITHDRAW: Final = "operations:withdraw"
TRANSFER: Final = "transfers:write"
HOLD: Final = "holds:write"
ADMIN: Final = "admin"  # all of them
SCOPES: Final = (READ, WRITE, DEPOSIT, WITHDRAW, TRANSFER, HOLD, ADMIN)

# By view and method. Any one of the scopes opens the door; what is not here is for nobody.
NEEDED: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "WalletOperation": {"POST": (DEPOSIT, WITHDRAW)},
    "WalletOperationInBody": {"POST": (DEPOSIT, WITHDRAW)},
    "WalletById": {"GET": (READ,), "PATCH": (WRITE,)},
    "Wallets": {"GET": (READ,), "POST": (WRITE,)},
    "OpenWallet": {"POST": (WRITE,)},
    "WalletOperations": {"GET": (READ,)},
    "WalletBalance": {"GET": (READ,)},
    "WalletStatement": {"GET": (READ,)},
    "WalletHolds": {"GET": (READ,), "POST": (HOLD,)},
    "Operations": {"POST": (DEPOSIT, WITHDRAW, TRANSFER)},
    "OperationById": {"GET": (READ,)},
    "OperationReversal": {"POST": (DEPOSIT, WITHDRAW, TRANSFER)},
    "Transfers": {"POST": (TRANSFER,)},
    "TransferById": {"GET": (READ,)},
    "HoldById": {"GET": (READ,)},
    "HoldCapture": {"POST": (HOLD,)},
    "HoldVoid": {"POST": (HOLD,)},
}
# By type of operation. A reversal needs the scope of what it does, whatever it undoes.
SCOPES_OF: Final = {
    "DEPOSIT": DEPOSIT,
    "WITHDRAW": WITHDRAW,
    "TRANSFER_OUT": TRANSFER,
    "HOLD": HOLD,
    "CAPTURE": HOLD,
    "VOID": HOLD,
    "REVERSAL_IN": DEPOSIT,
    "REVERSAL_OUT": WITHDRAW,
}
TRANSFERS: Final = ("TRANSFER_IN", "TRANSFER_OUT")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what that entitles to."""

    actor: str  # what the ledger remembers
    scopes: frozenset[str]
    within: int | None = None  # whose wallets it is restricted to, if it is


EVERYBODY: Final = Principal("", frozenset(SCOPES))  # where the API is open


def require_scope(principal: Principal, view: Any, method: str) -> None:
    """Raises Forbidden where none of the principal's scopes is for this.

    What the view has no method for goes on, to be told so.
    """
    needed = NEEDED.get(type(view).__name__, {}).get("GET" if method == "HEAD" else method)
    if needed is None:
        if method.lower() in view.http_method_names and hasattr(view, method.lower()):
            raise Forbidden
    elif principal.scopes.isdisjoint(needed):
        raise lacks(*needed)


def require(principal: Principal, command: Command) -> None:
    """Raises Forbidden where the command does what the principal has no scope for."""
    scope = SCOPES_OF[command.operation_type]
    if isinstance(command, Reversal):
        if command.original.type in TRANSFERS:
            scope = TRANSFER
        if command.original.type == "TRANSFER_OUT" and principal.within is not None:
            # It would take money out of a wallet that may be anybody's.
            raise Forbidden("What was transferred away is given back by its receiver.")
    if scope not in principal.scopes:
        raise lacks(scope)


def visible(principal: Principal, wallet: Wallet | None) -> Wallet:
    """The wallet. Raises WalletNotFound where there is none, or none for them."""
    if wallet is None or (principal.within is not None and wallet.owner_id != principal.within):
        raise WalletNotFound
    return wallet


def require_unrestricted(principal: Principal, what: str) -> None:
    """Raises Forbidden: `what` is decided by whoever runs the wallets, not by who owns one."""
    if principal.within is not None:
        raise Forbidden(f"A restricted key sets no {what}.")


def lacks(*scopes: str) -> Forbidden:
    return Forbidden(f"The key lacks the scope {' or '.join(scopes)}.")
