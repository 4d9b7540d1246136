from enum import StrEnum
from typing import Self


class EventType(StrEnum):
    WALLET_BALANCE_CHANGED = "wallet.balance.changed"
    WALLET_CHANGED = "wallet.changed"
    WALLET_HOLD_CAPTURED = "wallet.hold.captured"
    WALLET_HOLD_EXPIRED = "wallet.hold.expired"
    WALLET_HOLD_PLACED = "wallet.hold.placed"
    WALLET_HOLD_VOIDED = "wallet.hold.voided"
    WALLET_OPENED = "wallet.opened"
    WALLET_OPERATION_COMPLETED = "wallet.operation.completed"
    WALLET_OPERATION_REJECTED = "wallet.operation.rejected"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """Keep a value of a later version of the service: a committed payment must not fail to parse."""
        if not isinstance(value, str):
            return None
        unknown = str.__new__(cls, value)
        unknown._name_ = unknown._value_ = value
        return unknown
