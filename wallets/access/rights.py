"""Permissions: decides which requests a principal may send.

A request needs a scope for its view and method (NEEDED). If it moves money, it also needs the scope of the
operation type of its command (wallets/operation_types.py); a reversal of a transfer needs the scope of
transfers. A user may read and move only the user's own wallets, and a restricted key only those of its owner:
for them other wallets do not exist. The ledger checks the `owner_restriction` of a command under the wallet's
lock (wallets/ledger/decisions.py).
"""

from dataclasses import dataclass
from typing import Any, Final

from wallets.ledger import PERSON as PERSON_ACTOR
from wallets.ledger import Command, Reverse, keys
from wallets.models import User, Wallet
from wallets.operation_types import INCOMING, OPERATION_TYPES, TRANSFERS
from wallets.problems import Forbidden, Unauthorized, WalletNotFound

READ: Final = "wallets:read"
WRITE: Final = "wallets:write"
LIMITS: Final = "limits:write"  # an overdraft limit lends money
DEPOSIT: Final = OPERATION_TYPES["DEPOSIT"].scope
WITHDRAW: Final = OPERATION_TYPES["WITHDRAW"].scope
TRANSFER: Final = OPERATION_TYPES["TRANSFER_OUT"].scope
HOLD: Final = OPERATION_TYPES["HOLD"].scope
ADMIN: Final = "admin"  # all scopes
SCOPES: Final = (READ, WRITE, LIMITS, DEPOSIT, WITHDRAW, TRANSFER, HOLD, ADMIN)
# Every session of a user has this scope, and no key has it.
PERSON: Final = "person"
NO_SCOPE: Final = ()  # in NEEDED: the request needs no credentials

# By view and method: any one of the scopes permits the request. A method without an entry is forbidden.
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
    "Operations": {"GET": (READ,), "POST": (DEPOSIT, WITHDRAW, TRANSFER)},
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
# The scopes of a user for the user's own wallets. Only operators and keys deposit and withdraw.
USER_SCOPES: Final = frozenset((PERSON, READ, TRANSFER))
# The scopes of an operator for all wallets, by the Django permissions that grant them.
OPERATOR_SCOPES: Final = {
    ("wallets.view_wallet", "wallets.view_operation", "wallets.view_hold"): (READ,),
    ("wallets.change_wallet",): (WRITE,),
    ("wallets.adjust_wallet",): (LIMITS, DEPOSIT, WITHDRAW, TRANSFER, HOLD),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller of a request, and its permissions."""

    actor: str  # as the ledger records the caller, such as key:abcd1234
    scopes: frozenset[str]
    owner_restriction: int | None = None  # id of the user whose wallets it may use; None: all wallets

    @property
    def key_domain(self) -> str:
        """Return the namespace of the caller's idempotency keys; "" without an owner restriction."""
        return keys.namespace_of_owner(self.owner_restriction)

    def stored_key(self, key: str | None) -> str | None:
        """Return the idempotency key in the caller's namespace, as the ledger stores it."""
        return None if key is None else keys.stored(self.key_domain, key)


ANONYMOUS: Final = Principal("", frozenset())
OPEN_API_CLIENT: Final = Principal("", frozenset(SCOPES))  # a client without credentials if API_ACCESS=open


def person(user: User) -> Principal:
    """Return the principal of a user, restricted to the user's own wallets."""
    return Principal(f"{PERSON_ACTOR}{user.pk}", USER_SCOPES, user.pk)


def unverified_operator(user: User) -> Principal:
    """Return the principal of an operator who has not passed the second factor: only /me and logout."""
    return Principal(f"operator:{user.get_username()}", frozenset((PERSON,)), user.pk)


def operator(user: User) -> Principal:
    """Return the principal of an operator, with the scopes that the operator's permissions grant."""
    scopes = {
        scope
        for permissions, scopes in OPERATOR_SCOPES.items()
        if user.has_perms(permissions)
        for scope in scopes
    }
    return Principal(f"operator:{user.get_username()}", frozenset({PERSON, *scopes}))


def require_scope(principal: Principal, view: Any, method: str) -> None:
    """Raise Forbidden if the principal has none of the scopes that the view and method need.

    If the API is open, a request without the session that it needs is Unauthorized. A method that the view
    does not have passes: the view responds with 405.
    """
    needed = NEEDED.get(type(view).__name__, {}).get("GET" if method == "HEAD" else method)
    if needed is None:
        if method.lower() in view.http_method_names and hasattr(view, method.lower()):
            raise Forbidden
    elif needed is not NO_SCOPE and principal.scopes.isdisjoint(needed):
        if needed == (PERSON,) and principal is OPEN_API_CLIENT:
            raise Unauthorized("This request needs the session of a user. Log in.")
        raise missing_scope(*needed)
    elif needed == (ADMIN,):
        require_unrestricted(principal, "webhooks")  # a webhook receives the events of all wallets


def require(principal: Principal, command: Command) -> None:
    """Raise Forbidden if the principal lacks the scope of the command."""
    scope = OPERATION_TYPES[command.operation_type].scope
    if isinstance(command, Reverse) and command.original.type in TRANSFERS:
        scope = TRANSFER
        if command.original.type not in INCOMING and principal.owner_restriction is not None:
            # It would take money out of another owner's wallet.
            raise Forbidden("Only the receiver can reverse a transfer.")
    if scope not in principal.scopes:
        raise missing_scope(scope)


def command_fields(principal: Principal) -> dict[str, Any]:
    """Return the fields of a command that describe its client."""
    reads_all = principal.owner_restriction is None and READ in principal.scopes
    return {
        "actor": principal.actor,
        "owner_restriction": principal.owner_restriction,
        "reads_all": reads_all,
    }


def visible(principal: Principal, wallet: Wallet | None) -> Wallet:
    """Return the wallet. Raises WalletNotFound if it is None or the principal may not read it."""
    if wallet is None or (
        principal.owner_restriction is not None and wallet.owner_id != principal.owner_restriction
    ):
        raise WalletNotFound
    return wallet


def require_unrestricted(principal: Principal, what: str) -> None:
    """Raise Forbidden if the principal has an owner restriction: it may not set `what`."""
    if principal.owner_restriction is not None:
        raise Forbidden(f"Credentials with an owner restriction may not set {what}.")


def require_limits(principal: Principal, field: str) -> None:
    """Raise Forbidden if the principal may not set the limits or the owner of a wallet."""
    require_unrestricted(principal, field)
    if LIMITS not in principal.scopes:
        raise missing_scope(LIMITS)


def missing_scope(*scopes: str) -> Forbidden:
    if PERSON in scopes:
        return Forbidden("This request needs the session of a user.")
    return Forbidden(f"This request needs the scope {' or '.join(scopes)}.")
