from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.operation_status import OperationStatus

if TYPE_CHECKING:
    from ..models.operation import Operation


T = TypeVar("T", bound="Transfer")


@_attrs_define
class Transfer:
    """
    Attributes:
        id (UUID):
        amount (Decimal):
        currency (str):
        status (OperationStatus):
        reason (None | str):
        source (Operation):
        target (None | Operation): null until the transfer is completed.
        created_at (datetime.datetime):
    """

    id: UUID
    amount: Decimal
    currency: str
    status: OperationStatus
    reason: None | str
    source: Operation
    target: None | Operation
    created_at: datetime.datetime
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.operation import Operation  # noqa: PLC0415

        id = str(self.id)

        amount = format(self.amount, "f")

        currency = self.currency

        status = self.status.value

        reason: None | str
        reason = self.reason

        source = self.source.to_dict()

        target: dict[str, Any] | None
        if isinstance(self.target, Operation):
            target = self.target.to_dict()
        else:
            target = self.target

        created_at = self.created_at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "id": id,
                "amount": amount,
                "currency": currency,
                "status": status,
                "reason": reason,
                "source": source,
                "target": target,
                "createdAt": created_at,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.operation import Operation  # noqa: PLC0415

        d = dict(src_dict)
        id = UUID(d.pop("id"))

        amount = Decimal(d.pop("amount"))

        currency = d.pop("currency")

        status = OperationStatus(d.pop("status"))

        def _parse_reason(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        reason = _parse_reason(d.pop("reason"))

        source = Operation.from_dict(d.pop("source"))

        def _parse_target(data: object) -> None | Operation:
            if data is None:
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                target_type_0 = Operation.from_dict(data)

                return target_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | Operation, data)

        target = _parse_target(d.pop("target"))

        created_at = datetime.datetime.fromisoformat(d.pop("createdAt"))

        transfer = cls(
            id=id,
            amount=amount,
            currency=currency,
            status=status,
            reason=reason,
            source=source,
            target=target,
            created_at=created_at,
        )

        transfer.additional_properties = d
        return transfer

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
