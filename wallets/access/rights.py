"""Who may do what: the one place that decides.

A request needs a scope: by its view and method (NEEDED) and, if it moves money, the scope of the operation
type that its command becomes (wallets/operation_types.py); a reversal of a transfer needs the scope of
transfers. Besides, a person sees and moves their own wallets alone, as a restricted key does its owner's:
others do not exist for them.
Where money moves that is decided under the wallet's lock (wallets/ledger/batch.py), by `Command.within`.
"""

from dataclasses import dataclass
from typing import Any, Final

from wallets.ledger import PERSON as PERSON_ACTOR
from wallets.ledger import Command, Reverse, keys
from wallets.models import User, Wallet
from wallets.operation_types import INCOMING, OPERATION_TYPES, TRANSFERS
from wallets.problems import Forbidden, WalletNotFound

READ: Final = "wallets:read"
WRITE: Final = "wallets:write"
LIMITS: Final = "limits:write"  # an overdraft limit lends money, as a deposit makes it
DEPOSIT: Final = OPERATION_TYPES["DEPOSIT"].scope
WITHDRAW: Final = OPERATION_TYPES["WITHDRAW"].scope
TRANSFER: Final = OPERATION_TYPES["TRANSFER_OUT"].scope
HOLD: Final = OPERATION_TYPES["HOLD"].scope
ADMIN: Final = "admin"  # all of them
SCOPES: Final = (READ, WRITE, LIMITS, DEPOSIT, WITHDRAW, TRANSFER, HOLD, ADMIN)
# What no key has: to be somebody who is logged in.
PERSON: Final = "person"
NO_SCOPE: Final = ()  # in NEEDED: no scope

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
    "WalletEvents": {"GET": (READ,)},
    "BulkOperations": {"POST": (DEPOSIT, WITHDRAW, TRANSFER)},
    "OperationById": {"GET": (READ,)},
    "OperationReversal": {"POST": (DEPOSIT, WITHDRAW, TRANSFER)},
    "Transfers": {"POST": (TRANSFER,)},
    "TransferById": {"GET": (READ,)},
    "HoldById": {"GET": (READ,)},
    "HoldCapture": {"POST": (HOLD,)},
    "HoldVoid": {"POST": (HOLD,)},
    "Webhooks": {"GET": (ADMIN,), "POST": (ADMIN,)},
    "WebhookById": {"GET": (ADMIN,), "PATCH": (ADMIN,), "DELETE": (ADMIN,)},
    "WebhookRotation": {"POST": (ADMIN,)},
    "WebhookTest": {"POST": (ADMIN,)},
    "WebhookDeliveries": {"GET": (ADMIN,)},
    "WebhookDeadLetters": {"GET": (ADMIN,), "DELETE": (ADMIN,)},
    "WebhookReplay": {"POST": (ADMIN,)},
    "SignUp": {"POST": NO_SCOPE},
    "LogIn": {"POST": NO_SCOPE},
    "LogOut": {"POST": (PERSON,)},
    "Me": {"GET": (PERSON,)},
    "MyWallet": {"GET": (PERSON,)},
}
# What a person may do with their own wallets: money comes in and goes out through the bank.
OWN: Final = frozenset((PERSON, READ, TRANSFER))
# What an operator may do with all wallets, by all of these permissions of theirs.
OF_OPERATORS: Final = {
    ("wallets.view_wallet", "wallets.view_operation", "wallets.view_hold"): (READ,),
    ("wallets.change_wallet",): (WRITE,),
    ("wallets.adjust_wallet",): (LIMITS, DEPOSIT, WITHDRAW, TRANSFER, HOLD),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what that entitles to."""

    actor: str  # what the ledger remembers
    scopes: frozenset[str]
    owner_restriction: int | None = None  # whose wallets it is restricted to, if it is

    @property
    def key_domain(self) -> str:
        """The namespace of this caller's idempotency keys: one for each owner restriction, else ""."""
        return keys.namespace_of_owner(self.owner_restriction)

    def stored_key(self, key: str | None) -> str | None:
        """The idempotency key in this caller's namespace, as the ledger stores it."""
        return None if key is None else keys.stored(self.key_domain, key)


NOBODY: Final = Principal("", frozenset())
EVERYBODY: Final = Principal("", frozenset(SCOPES))  # where the API is open


def person(user: User) -> Principal:
    """Whoever is logged in, as the owner of their wallets."""
    return Principal(f"{PERSON_ACTOR}{user.pk}", OWN, user.pk)


def unproven(user: User) -> Principal:
    """An operator of whom a second factor is yet to be shown: they may know who they are, and log out."""
    return Principal(f"operator:{user.get_username()}", frozenset((PERSON,)), user.pk)


def operator(user: User) -> Principal:
    """The same as an operator, by their permissions."""
    scopes = {
        scope
        for permissions, scopes in OF_OPERATORS.items()
        if user.has_perms(permissions)
        for scope in scopes
    }
    return Principal(f"operator:{user.get_username()}", frozenset({PERSON, *scopes}))


def require_scope(principal: Principal, view: Any, method: str) -> None:
    """Raises Forbidden where none of the principal's scopes is for this.

    What the view has no method for goes on, to be told so.
    """
    needed = NEEDED.get(type(view).__name__, {}).get("GET" if method == "HEAD" else method)
    if needed is None:
        if method.lower() in view.http_method_names and hasattr(view, method.lower()):
            raise Forbidden
    elif needed is not NO_SCOPE and principal.scopes.isdisjoint(needed):
        raise lacks(*needed)
    elif needed == (ADMIN,):
        require_unrestricted(principal, "webhooks")  # they are told of all wallets


def require(principal: Principal, command: Command) -> None:
    """Raises Forbidden where the command does what the principal has no scope for."""
    scope = OPERATION_TYPES[command.operation_type].scope
    if isinstance(command, Reverse) and command.original.type in TRANSFERS:
        scope = TRANSFER
        if command.original.type not in INCOMING and principal.owner_restriction is not None:
            # It would take money out of a wallet that may be anybody's.
            raise Forbidden("What was transferred away is given back by its receiver.")
    if scope not in principal.scopes:
        raise lacks(scope)


def command_fields(principal: Principal) -> dict[str, Any]:
    """Return the fields of a command that describe its client."""
    reads_all = principal.owner_restriction is None and READ in principal.scopes
    return {
        "actor": principal.actor,
        "owner_restriction": principal.owner_restriction,
        "reads_all": reads_all,
    }


def visible(principal: Principal, wallet: Wallet | None) -> Wallet:
    """The wallet. Raises WalletNotFound where there is none, or none for them."""
    if wallet is None or (
        principal.owner_restriction is not None and wallet.owner_id != principal.owner_restriction
    ):
        raise WalletNotFound
    return wallet


def require_unrestricted(principal: Principal, what: str) -> None:
    """Raises Forbidden: `what` is decided by whoever runs the wallets, not by who owns one."""
    if principal.owner_restriction is not None:
        raise Forbidden(f"Who is restricted to their own wallets sets no {what}.")


def require_overdraft_limit(principal: Principal) -> None:
    """Raises Forbidden: the right to open wallets includes none to let them be overdrawn."""
    require_unrestricted(principal, "overdraftLimit")
    if LIMITS not in principal.scopes:
        raise lacks(LIMITS)


def lacks(*scopes: str) -> Forbidden:
    if PERSON in scopes:
        return Forbidden("This is for people who are logged in.")
    return Forbidden(f"It takes the scope {' or '.join(scopes)}.")
