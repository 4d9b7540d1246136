"""The table of operation types: everything that the code needs to know of a type.

For a new type add a row here, a changeset for the check constraints of the table `operation`, a command with
its rule, and its row in tests/ledger/test_rules.py.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from django.utils.functional import Promise
from django.utils.translation import pgettext_lazy


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationType:
    name: str
    label: Promise  # shown to the owner of the wallet
    sign: Literal[1, 0, -1]  # of the change of the balance; 0 if no money moves
    scope: str  # that a client needs for an operation of this type
    opposite: str | None = None  # the type of the operation on the second wallet
    reversed_by: str | None = None  # None: it cannot be reversed
    # The column that refers to the hold or original operation; set for each operation of this type.
    link: Literal["transfer_id", "hold_id", "reverses_id"] | None = None

    @property
    def has_sequence(self) -> bool:
        """Whether an operation of this type counts in its wallet's sequence, and has a balance."""
        return self.sign != 0


OPERATION_TYPES: Final = {
    row.name: row
    for row in (
        OperationType(
            name="DEPOSIT",
            label=pgettext_lazy("operation", "Deposit"),
            sign=1,
            scope="operations:deposit",
            reversed_by="REVERSAL_OUT",
        ),
        OperationType(
            name="WITHDRAW",
            label=pgettext_lazy("operation", "Withdrawal"),
            sign=-1,
            scope="operations:withdraw",
            reversed_by="REVERSAL_IN",
        ),
        OperationType(
            name="TRANSFER_IN",
            label=pgettext_lazy("operation", "Received"),
            sign=1,
            scope="transfers:write",
            opposite="TRANSFER_OUT",
            reversed_by="REVERSAL_OUT",
            link="transfer_id",
        ),
        OperationType(
            name="TRANSFER_OUT",
            label=pgettext_lazy("operation", "Sent"),
            sign=-1,
            scope="transfers:write",
            opposite="TRANSFER_IN",
            reversed_by="REVERSAL_IN",
            link="transfer_id",
        ),
        OperationType(
            name="HOLD",  # reserves money
            label=pgettext_lazy("operation", "Hold"),
            sign=0,
            scope="holds:write",
        ),
        OperationType(
            name="CAPTURE",  # takes money of a hold
            label=pgettext_lazy("operation", "Payment"),
            sign=-1,
            scope="holds:write",
            reversed_by="REVERSAL_IN",
            link="hold_id",
        ),
        OperationType(
            name="VOID",  # releases the money of a hold
            label=pgettext_lazy("operation", "Hold released"),
            sign=0,
            scope="holds:write",
            link="hold_id",
        ),
        OperationType(
            name="REVERSAL_IN",
            label=pgettext_lazy("operation", "Refund"),
            sign=1,
            scope="operations:deposit",
            opposite="REVERSAL_OUT",
            link="reverses_id",
        ),
        OperationType(
            name="REVERSAL_OUT",
            label=pgettext_lazy("operation", "Reversal"),
            sign=-1,
            scope="operations:withdraw",
            opposite="REVERSAL_IN",
            link="reverses_id",
        ),
    )
}

NAMES: Final = tuple(OPERATION_TYPES)
INCOMING: Final = frozenset(name for name, row in OPERATION_TYPES.items() if row.sign > 0)
WITHOUT_SEQUENCE: Final = tuple(name for name, row in OPERATION_TYPES.items() if not row.has_sequence)
TRANSFERS: Final = tuple(name for name, row in OPERATION_TYPES.items() if row.link == "transfer_id")
HOLD_TYPES: Final = ("HOLD", *(name for name, row in OPERATION_TYPES.items() if row.link == "hold_id"))
REVERSED_BY: Final = {name: row.reversed_by for name, row in OPERATION_TYPES.items() if row.reversed_by}
LABELS: Final = {name: row.label for name, row in OPERATION_TYPES.items()}


def signed(type: str, amount: Decimal) -> Decimal:
    """Return the amount of an operation, negative if the money left the wallet."""
    return amount if type in INCOMING else -amount
