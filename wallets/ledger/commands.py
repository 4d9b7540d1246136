"""What can be asked of the ledger. Plain values: no database, no HTTP."""

from dataclasses import field
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final
from uuid import UUID

from uuid_utils.compat import uuid7

from wallets.ledger.value import keyword_value
from wallets.operation_types import REVERSED_BY

PERSON: Final = "user:"  # begins a person's actor; people are restricted to their own wallets


@keyword_value
class Command:
    """Something to do on `wallet_id`.

    `id` names the operation before it is written: a command that runs twice is applied once.
    `key` is the client's idempotency key as it is stored (keys.py); where the client chose the id, the id is
    the key too.
    """

    type: ClassVar[str]

    wallet_id: UUID
    id: UUID = field(default_factory=uuid7)
    key: str | None = None
    client_chose_id: bool = False
    description: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    actor: str = ""
    owner_restriction: int | None = None  # whose wallet `wallet_id` has to be; anybody's where None
    reads_all: bool = True  # whether its caller may read every wallet, and so learn why one takes no money
    is_async: bool = False  # put it into the inbox, decide later
    accepted_at: datetime | None = None  # when it was put there, for one that comes from there

    @property
    def operation_type(self) -> str:
        """The type of the operation that this becomes."""
        return self.type

    @property
    def counterparty_id(self) -> UUID | None:
        """The second wallet that it needs, if any."""
        return None

    @property
    def wallet_ids(self) -> tuple[UUID, ...]:
        """The wallets that have to be locked for it."""
        return (self.wallet_id,) if self.counterparty_id is None else (self.wallet_id, self.counterparty_id)


@keyword_value
class Deposit(Command):
    type = "DEPOSIT"
    amount: Decimal


@keyword_value
class Withdraw(Command):
    type = "WITHDRAW"
    amount: Decimal


@keyword_value
class MakeTransfer(Command):
    """Move `amount` from `wallet_id` to `target_id`. Its id is that of the operation on the source too."""

    type = "TRANSFER_OUT"
    target_id: UUID
    amount: Decimal
    target_operation_id: UUID = field(default_factory=uuid7)

    @property
    def counterparty_id(self) -> UUID:
        return self.target_id


@keyword_value
class PlaceHold(Command):
    """Set `amount` aside, until `expires_at` if that is given. Its id is the hold's."""

    type = "HOLD"
    amount: Decimal
    expires_at: datetime | None = None


@keyword_value
class CaptureHold(Command):
    """Take `amount` of what a hold has set aside, all of it where None; the rest is released."""

    type = "CAPTURE"
    hold_id: UUID
    amount: Decimal | None = None


@keyword_value
class VoidHold(Command):
    """Release all that a hold has set aside."""

    type = "VOID"
    hold_id: UUID


@keyword_value
class Original:
    """What is known of an operation that is to be reversed; nothing of it ever changes."""

    id: UUID
    type: str
    amount: Decimal
    is_completed: bool
    # Of a transfer: the other wallet, and the operation there.
    counterparty_id: UUID | None = None
    counterpart_id: UUID | None = None


@keyword_value
class Reverse(Command):
    """Move `amount` of an operation back, all that is left of it where None; of a transfer on both sides."""

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


@keyword_value
class RejectAccepted(Command):
    """An operator's decision to refuse an operation that was accepted asynchronously.

    It has the fields of the inbox entry. A hold, an operation or a second wallet that they refer to need not
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


@keyword_value
class AtomicBulk:
    """Commands of which all are carried out or none."""

    commands: tuple[Command, ...]

    @property
    def wallet_ids(self) -> tuple[UUID, ...]:
        return tuple({wallet_id for command in self.commands for wallet_id in command.wallet_ids})


Work = Command | AtomicBulk
COMMANDS: Final[dict[str, type[Deposit] | type[Withdraw]]] = {
    command.type: command for command in (Deposit, Withdraw)
}
