"""What can be asked of the ledger. Plain values: no database, no HTTP."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from uuid_utils.compat import uuid7


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Move `amount` on one wallet.

    `id` names the operation before it is written: a command that runs twice is applied once.
    `key` is the client's idempotency key; where the client chose the id, the id is the key too.
    """

    type: ClassVar[str]

    wallet_id: UUID
    amount: Decimal
    id: UUID = field(default_factory=uuid7)
    key: str | None = None
    client_chose_id: bool = False
    description: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    actor: str = ""


class Deposit(Command):
    __slots__ = ()
    type = "DEPOSIT"


class Withdraw(Command):
    __slots__ = ()
    type = "WITHDRAW"


COMMANDS: dict[str, type[Command]] = {command.type: command for command in (Deposit, Withdraw)}
