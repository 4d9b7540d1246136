"""The commands of the ledger, as plain values: no database, no HTTP."""

from dataclasses import field
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final, NamedTuple
from uuid import UUID

from uuid_utils.compat import uuid7

from wallets.ledger.immutable import immutable_keywords
from wallets.operation_types import REVERSED_BY

PERSON: Final = "user:"  # prefix of a user's actor; users are restricted to their own wallets


class Details(NamedTuple):
    """A client's own data about a movement: the ledger stores it and does not interpret it."""

    reference: str
    description: str
    metadata: dict[str, Any]


@immutable_keywords
class Command:
    """A change of the wallet `wallet_id`.

    `id` names the operation before it is written: a command that runs twice is applied once.
    `key` is the client's idempotency key as the ledger stores it (keys.py). If the client chose the id, the
    id is the key too.
    """

    type: ClassVar[str]

    wallet_id: UUID
    id: UUID = field(default_factory=uuid7)
    key: str | None = None
    client_chose_id: bool = False
    reference: str = ""
    description: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    inherited: Details | None = None  # of the hold or the operation that the command refers to
    actor: str = ""
    owner_restriction: int | None = None  # the user who must own `wallet_id`; None: any wallet
    reads_all: bool = True  # whether the client may read every wallet, and so learn why one takes no money
    is_async: bool = False  # put the command into the inbox; an inbox worker decides it later
    accepted_at: datetime | None = None  # when it was put into the inbox, for a command from there

    @property
    def operation_type(self) -> str:
        """The type of the operation that the command becomes."""
        return self.type

    @property
    def counterparty_id(self) -> UUID | None:
        """The second wallet of the command, if it has one."""
        return None

    @property
    def wallet_ids(self) -> tuple[UUID, ...]:
        """The wallets that must be locked for the command."""
        return (self.wallet_id,) if self.counterparty_id is None else (self.wallet_id, self.counterparty_id)


@immutable_keywords
class Deposit(Command):
    type = "DEPOSIT"
    amount: Decimal


@immutable_keywords
class Withdraw(Command):
    type = "WITHDRAW"
    amount: Decimal


@immutable_keywords
class MakeTransfer(Command):
    """Move `amount` from `wallet_id` to `target_id`. `id` names the transfer and the source's operation."""

    type = "TRANSFER_OUT"
    target_id: UUID
    amount: Decimal
    target_operation_id: UUID = field(default_factory=uuid7)

    @property
    def counterparty_id(self) -> UUID:
        return self.target_id


@immutable_keywords
class PlaceHold(Command):
    """Set `amount` aside, until `expires_at` if that is given. `id` names the hold too."""

    type = "HOLD"
    amount: Decimal
    expires_at: datetime | None = None


@immutable_keywords
class CaptureHold(Command):
    """Take `amount` of the held amount, all of it if None. The rest is released."""

    type = "CAPTURE"
    hold_id: UUID
    amount: Decimal | None = None


@immutable_keywords
class VoidHold(Command):
    """Release the held amount."""

    type = "VOID"
    hold_id: UUID


@immutable_keywords
class Original:
    """The operation to reverse. None of these fields ever changes."""

    id: UUID
    type: str
    amount: Decimal
    is_completed: bool
    # For a transfer: the other wallet, and the operation on it.
    counterparty_id: UUID | None = None
    counterpart_id: UUID | None = None
    details: Details | None = None


@immutable_keywords
class Reverse(Command):
    """Move `amount` of an operation back, the remaining amount if None; for a transfer in both wallets."""

    type = "REVERSAL"
    original: Original
    amount: Decimal | None = None
    counterpart_operation_id: UUID = field(default_factory=uuid7)

    @property
    def operation_type(self) -> str:
        return REVERSED_BY.get(self.original.type, "REVERSAL_OUT")

    @property
    def counterparty_id(self) -> UUID | None:
        return self.original.counterparty_id


@immutable_keywords
class RejectAccepted(Command):
    """An operator's decision to refuse an operation that was accepted asynchronously.

    It has the fields of the inbox entry. The hold, the operation or the second wallet that they name need not
    exist: only the entry's own wallet is locked.
    """

    type = "REJECTION"
    accepted_type: str
    amount: Decimal
    target_id: UUID | None = None
    hold_id: UUID | None = None
    reverses_id: UUID | None = None
    takes_rest: bool | None = None

    @property
    def operation_type(self) -> str:
        return self.accepted_type

    @property
    def counterparty_id(self) -> UUID | None:
        return self.target_id

    @property
    def wallet_ids(self) -> tuple[UUID, ...]:
        return (self.wallet_id,)


@immutable_keywords
class AtomicBulk:
    """Commands that are applied all together or not at all."""

    commands: tuple[Command, ...]

    @property
    def wallet_ids(self) -> tuple[UUID, ...]:
        return tuple({wallet_id for command in self.commands for wallet_id in command.wallet_ids})


class Links(NamedTuple):
    """What a command refers to, as its operation records it."""

    hold_id: UUID | None = None
    reverses_id: UUID | None = None
    expires_at: datetime | None = None


_NO_LINKS: Final = Links()  # of most commands: created once


def links_of(command: Command) -> Links:
    """Return the hold that the command ends, the operation that it reverses, the time at which it expires."""
    match command:
        case CaptureHold() | VoidHold():
            return Links(hold_id=command.hold_id)
        case Reverse():
            return Links(reverses_id=command.original.id)
        case PlaceHold():
            return Links(expires_at=command.expires_at)
        case RejectAccepted():
            return Links(hold_id=command.hold_id, reverses_id=command.reverses_id)
    return _NO_LINKS


def given_details(command: Command) -> Details:
    """Return the details that the client sent with the command."""
    return Details(command.reference, command.description, command.metadata)


def details_of(command: Command) -> Details:
    """Return the details that the operation records: each that the client did not send is inherited."""
    given, inherited = given_details(command), command.inherited
    if inherited is None:
        return given
    return Details(
        given.reference or inherited.reference,
        given.description or inherited.description,
        given.metadata or inherited.metadata,
    )


def requested_amount(command: Command) -> Decimal | None:
    """Return the amount that the client named; None if it left the amount to the ledger."""
    return getattr(command, "amount", None)


def takes_rest(command: Command) -> bool | None:
    """Whether the command takes the whole remaining amount; None for a type that always names an amount."""
    if isinstance(command, CaptureHold | Reverse | VoidHold):
        return requested_amount(command) is None
    return command.takes_rest if isinstance(command, RejectAccepted) else None


Work = Command | AtomicBulk
COMMANDS: Final[dict[str, type[Deposit] | type[Withdraw]]] = {
    command.type: command for command in (Deposit, Withdraw)
}
