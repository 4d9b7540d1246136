from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.operation import Operation


T = TypeVar("T", bound="Statement")


@_attrs_define
class Statement:
    """`openingBalance` plus the entries at `from` or later and before `to` equals `closingBalance`.

    Attributes:
        wallet_id (UUID):
        currency (str):
        from_ (datetime.datetime):
        to (datetime.datetime):
        opening_balance (Decimal):
        entries (list[Operation]): Oldest first.
        closing_balance (Decimal):
    """

    wallet_id: UUID
    currency: str
    from_: datetime.datetime
    to: datetime.datetime
    opening_balance: Decimal
    entries: list[Operation]
    closing_balance: Decimal
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        wallet_id = str(self.wallet_id)

        currency = self.currency

        from_ = self.from_.isoformat()

        to = self.to.isoformat()

        opening_balance = format(self.opening_balance, "f")

        entries = []
        for entries_item_data in self.entries:
            entries_item = entries_item_data.to_dict()
            entries.append(entries_item)

        closing_balance = format(self.closing_balance, "f")

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "walletId": wallet_id,
                "currency": currency,
                "from": from_,
                "to": to,
                "openingBalance": opening_balance,
                "entries": entries,
                "closingBalance": closing_balance,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.operation import Operation  # noqa: PLC0415

        d = dict(src_dict)
        wallet_id = UUID(d.pop("walletId"))

        currency = d.pop("currency")

        from_ = datetime.datetime.fromisoformat(d.pop("from"))

        to = datetime.datetime.fromisoformat(d.pop("to"))

        opening_balance = Decimal(d.pop("openingBalance"))

        entries = []
        _entries = d.pop("entries")
        for entries_item_data in _entries:
            entries_item = Operation.from_dict(entries_item_data)

            entries.append(entries_item)

        closing_balance = Decimal(d.pop("closingBalance"))

        statement = cls(
            wallet_id=wallet_id,
            currency=currency,
            from_=from_,
            to=to,
            opening_balance=opening_balance,
            entries=entries,
            closing_balance=closing_balance,
        )

        statement.additional_properties = d
        return statement

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
