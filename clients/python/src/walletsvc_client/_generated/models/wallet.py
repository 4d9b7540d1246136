from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.wallet_status import WalletStatus

if TYPE_CHECKING:
    from ..models.wallet_metadata import WalletMetadata


T = TypeVar("T", bound="Wallet")


@_attrs_define
class Wallet:
    """
    Attributes:
        id (UUID):
        currency (str):
        balance (Decimal):
        held (Decimal):
        available (Decimal):
        overdraft_limit (Decimal):
        max_balance (Decimal | None):
        status (WalletStatus):
        external_id (None | str):
        label (str):
        metadata (WalletMetadata):
        sequence (int):
        created_at (datetime.datetime):
        updated_at (datetime.datetime):
    """

    id: UUID
    currency: str
    balance: Decimal
    held: Decimal
    available: Decimal
    overdraft_limit: Decimal
    max_balance: Decimal | None
    status: WalletStatus
    external_id: None | str
    label: str
    metadata: WalletMetadata
    sequence: int
    created_at: datetime.datetime
    updated_at: datetime.datetime
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        id = str(self.id)

        currency = self.currency

        balance = format(self.balance, "f")

        held = format(self.held, "f")

        available = format(self.available, "f")

        overdraft_limit = format(self.overdraft_limit, "f")

        max_balance: None | str
        if isinstance(self.max_balance, Decimal):
            max_balance = format(self.max_balance, "f")

        else:
            max_balance = self.max_balance

        status = self.status.value

        external_id: None | str
        external_id = self.external_id

        label = self.label

        metadata = self.metadata.to_dict()

        sequence = self.sequence

        created_at = self.created_at.isoformat()

        updated_at = self.updated_at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "id": id,
                "currency": currency,
                "balance": balance,
                "held": held,
                "available": available,
                "overdraftLimit": overdraft_limit,
                "maxBalance": max_balance,
                "status": status,
                "externalId": external_id,
                "label": label,
                "metadata": metadata,
                "sequence": sequence,
                "createdAt": created_at,
                "updatedAt": updated_at,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.wallet_metadata import WalletMetadata  # noqa: PLC0415

        d = dict(src_dict)
        id = UUID(d.pop("id"))

        currency = d.pop("currency")

        balance = Decimal(d.pop("balance"))

        held = Decimal(d.pop("held"))

        available = Decimal(d.pop("available"))

        overdraft_limit = Decimal(d.pop("overdraftLimit"))

        def _parse_max_balance(data: object) -> Decimal | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                max_balance_type_0 = Decimal(data)

                return max_balance_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(Decimal | None, data)

        max_balance = _parse_max_balance(d.pop("maxBalance"))

        status = WalletStatus(d.pop("status"))

        def _parse_external_id(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        external_id = _parse_external_id(d.pop("externalId"))

        label = d.pop("label")

        metadata = WalletMetadata.from_dict(d.pop("metadata"))

        sequence = d.pop("sequence")

        created_at = datetime.datetime.fromisoformat(d.pop("createdAt"))

        updated_at = datetime.datetime.fromisoformat(d.pop("updatedAt"))

        wallet = cls(
            id=id,
            currency=currency,
            balance=balance,
            held=held,
            available=available,
            overdraft_limit=overdraft_limit,
            max_balance=max_balance,
            status=status,
            external_id=external_id,
            label=label,
            metadata=metadata,
            sequence=sequence,
            created_at=created_at,
            updated_at=updated_at,
        )

        wallet.additional_properties = d
        return wallet

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
