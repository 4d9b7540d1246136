from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="Balance")


@_attrs_define
class Balance:
    """
    Attributes:
        wallet_id (UUID):
        currency (str):
        balance (Decimal):
        held (Decimal):
        available (Decimal):
        sequence (int): The number of operations that had moved money at that time.
        at (datetime.datetime): The requested time; without one, the time of the last change.
    """

    wallet_id: UUID
    currency: str
    balance: Decimal
    held: Decimal
    available: Decimal
    sequence: int
    at: datetime.datetime
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        wallet_id = str(self.wallet_id)

        currency = self.currency

        balance = format(self.balance, "f")

        held = format(self.held, "f")

        available = format(self.available, "f")

        sequence = self.sequence

        at = self.at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "walletId": wallet_id,
                "currency": currency,
                "balance": balance,
                "held": held,
                "available": available,
                "sequence": sequence,
                "at": at,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        wallet_id = UUID(d.pop("walletId"))

        currency = d.pop("currency")

        balance = Decimal(d.pop("balance"))

        held = Decimal(d.pop("held"))

        available = Decimal(d.pop("available"))

        sequence = d.pop("sequence")

        at = datetime.datetime.fromisoformat(d.pop("at"))

        balance = cls(
            wallet_id=wallet_id,
            currency=currency,
            balance=balance,
            held=held,
            available=available,
            sequence=sequence,
            at=at,
        )

        balance.additional_properties = d
        return balance

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
