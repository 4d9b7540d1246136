from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.hold_status import HoldStatus

if TYPE_CHECKING:
    from ..models.hold_detail_metadata import HoldDetailMetadata
    from ..models.operation import Operation


T = TypeVar("T", bound="HoldDetail")


@_attrs_define
class HoldDetail:
    """
    Attributes:
        id (UUID):
        wallet_id (UUID):
        amount (Decimal):
        currency (str):
        status (HoldStatus):
        captured_amount (Decimal | None):
        operation_id (None | UUID): The operation that captured it.
        reference (str):
        description (str):
        metadata (HoldDetailMetadata):
        expires_at (datetime.datetime | None):
        created_at (datetime.datetime):
        ended_at (datetime.datetime | None):
        captures (list[Operation]): The operations that took the held money.
    """

    id: UUID
    wallet_id: UUID
    amount: Decimal
    currency: str
    status: HoldStatus
    captured_amount: Decimal | None
    operation_id: None | UUID
    reference: str
    description: str
    metadata: HoldDetailMetadata
    expires_at: datetime.datetime | None
    created_at: datetime.datetime
    ended_at: datetime.datetime | None
    captures: list[Operation]
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        id = str(self.id)

        wallet_id = str(self.wallet_id)

        amount = format(self.amount, "f")

        currency = self.currency

        status = self.status.value

        captured_amount: None | str
        if isinstance(self.captured_amount, Decimal):
            captured_amount = format(self.captured_amount, "f")

        else:
            captured_amount = self.captured_amount

        operation_id: None | str
        if isinstance(self.operation_id, UUID):
            operation_id = str(self.operation_id)
        else:
            operation_id = self.operation_id

        reference = self.reference

        description = self.description

        metadata = self.metadata.to_dict()

        expires_at: None | str
        if isinstance(self.expires_at, datetime.datetime):
            expires_at = self.expires_at.isoformat()
        else:
            expires_at = self.expires_at

        created_at = self.created_at.isoformat()

        ended_at: None | str
        if isinstance(self.ended_at, datetime.datetime):
            ended_at = self.ended_at.isoformat()
        else:
            ended_at = self.ended_at

        captures = []
        for captures_item_data in self.captures:
            captures_item = captures_item_data.to_dict()
            captures.append(captures_item)

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "id": id,
                "walletId": wallet_id,
                "amount": amount,
                "currency": currency,
                "status": status,
                "capturedAmount": captured_amount,
                "operationId": operation_id,
                "reference": reference,
                "description": description,
                "metadata": metadata,
                "expiresAt": expires_at,
                "createdAt": created_at,
                "endedAt": ended_at,
                "captures": captures,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.hold_detail_metadata import HoldDetailMetadata  # noqa: PLC0415
        from ..models.operation import Operation  # noqa: PLC0415

        d = dict(src_dict)
        id = UUID(d.pop("id"))

        wallet_id = UUID(d.pop("walletId"))

        amount = Decimal(d.pop("amount"))

        currency = d.pop("currency")

        status = HoldStatus(d.pop("status"))

        def _parse_captured_amount(data: object) -> Decimal | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                captured_amount_type_0 = Decimal(data)

                return captured_amount_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(Decimal | None, data)

        captured_amount = _parse_captured_amount(d.pop("capturedAmount"))

        def _parse_operation_id(data: object) -> None | UUID:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                operation_id_type_0 = UUID(data)

                return operation_id_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | UUID, data)

        operation_id = _parse_operation_id(d.pop("operationId"))

        reference = d.pop("reference")

        description = d.pop("description")

        metadata = HoldDetailMetadata.from_dict(d.pop("metadata"))

        def _parse_expires_at(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                expires_at_type_0 = datetime.datetime.fromisoformat(data)

                return expires_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        expires_at = _parse_expires_at(d.pop("expiresAt"))

        created_at = datetime.datetime.fromisoformat(d.pop("createdAt"))

        def _parse_ended_at(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                ended_at_type_0 = datetime.datetime.fromisoformat(data)

                return ended_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        ended_at = _parse_ended_at(d.pop("endedAt"))

        captures = []
        _captures = d.pop("captures")
        for captures_item_data in _captures:
            captures_item = Operation.from_dict(captures_item_data)

            captures.append(captures_item)

        hold_detail = cls(
            id=id,
            wallet_id=wallet_id,
            amount=amount,
            currency=currency,
            status=status,
            captured_amount=captured_amount,
            operation_id=operation_id,
            reference=reference,
            description=description,
            metadata=metadata,
            expires_at=expires_at,
            created_at=created_at,
            ended_at=ended_at,
            captures=captures,
        )

        hold_detail.additional_properties = d
        return hold_detail

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
