from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.operation_status import OperationStatus
from ..models.operation_type import OperationType

if TYPE_CHECKING:
    from ..models.operation_metadata import OperationMetadata


T = TypeVar("T", bound="Operation")


@_attrs_define
class Operation:
    """
    Attributes:
        id (UUID):
        wallet_id (UUID):
        sequence (int | None):
        operation_type (OperationType):
        amount (Decimal):
        currency (str):
        status (OperationStatus):
        reason (None | str):
        balance (Decimal | None): After the operation; null if no money moved, or if the balance is another owner's.
        transfer_id (None | UUID):
        counterparty_wallet_id (None | UUID):
        hold_id (None | UUID):
        reverses_id (None | UUID):
        idempotency_key (None | str):
        reference (str):
        description (str):
        metadata (OperationMetadata):
        created_at (datetime.datetime):
    """

    id: UUID
    wallet_id: UUID
    sequence: int | None
    operation_type: OperationType
    amount: Decimal
    currency: str
    status: OperationStatus
    reason: None | str
    balance: Decimal | None
    transfer_id: None | UUID
    counterparty_wallet_id: None | UUID
    hold_id: None | UUID
    reverses_id: None | UUID
    idempotency_key: None | str
    reference: str
    description: str
    metadata: OperationMetadata
    created_at: datetime.datetime
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        id = str(self.id)

        wallet_id = str(self.wallet_id)

        sequence: int | None
        sequence = self.sequence

        operation_type = self.operation_type.value

        amount = format(self.amount, "f")

        currency = self.currency

        status = self.status.value

        reason: None | str
        reason = self.reason

        balance: None | str
        if isinstance(self.balance, Decimal):
            balance = format(self.balance, "f")

        else:
            balance = self.balance

        transfer_id: None | str
        if isinstance(self.transfer_id, UUID):
            transfer_id = str(self.transfer_id)
        else:
            transfer_id = self.transfer_id

        counterparty_wallet_id: None | str
        if isinstance(self.counterparty_wallet_id, UUID):
            counterparty_wallet_id = str(self.counterparty_wallet_id)
        else:
            counterparty_wallet_id = self.counterparty_wallet_id

        hold_id: None | str
        if isinstance(self.hold_id, UUID):
            hold_id = str(self.hold_id)
        else:
            hold_id = self.hold_id

        reverses_id: None | str
        if isinstance(self.reverses_id, UUID):
            reverses_id = str(self.reverses_id)
        else:
            reverses_id = self.reverses_id

        idempotency_key: None | str
        idempotency_key = self.idempotency_key

        reference = self.reference

        description = self.description

        metadata = self.metadata.to_dict()

        created_at = self.created_at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "id": id,
                "walletId": wallet_id,
                "sequence": sequence,
                "operationType": operation_type,
                "amount": amount,
                "currency": currency,
                "status": status,
                "reason": reason,
                "balance": balance,
                "transferId": transfer_id,
                "counterpartyWalletId": counterparty_wallet_id,
                "holdId": hold_id,
                "reversesId": reverses_id,
                "idempotencyKey": idempotency_key,
                "reference": reference,
                "description": description,
                "metadata": metadata,
                "createdAt": created_at,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.operation_metadata import OperationMetadata  # noqa: PLC0415

        d = dict(src_dict)
        id = UUID(d.pop("id"))

        wallet_id = UUID(d.pop("walletId"))

        def _parse_sequence(data: object) -> int | None:
            if data is None:
                return data
            return cast(int | None, data)

        sequence = _parse_sequence(d.pop("sequence"))

        operation_type = OperationType(d.pop("operationType"))

        amount = Decimal(d.pop("amount"))

        currency = d.pop("currency")

        status = OperationStatus(d.pop("status"))

        def _parse_reason(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        reason = _parse_reason(d.pop("reason"))

        def _parse_balance(data: object) -> Decimal | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                balance_type_0 = Decimal(data)

                return balance_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(Decimal | None, data)

        balance = _parse_balance(d.pop("balance"))

        def _parse_transfer_id(data: object) -> None | UUID:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                transfer_id_type_0 = UUID(data)

                return transfer_id_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | UUID, data)

        transfer_id = _parse_transfer_id(d.pop("transferId"))

        def _parse_counterparty_wallet_id(data: object) -> None | UUID:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                counterparty_wallet_id_type_0 = UUID(data)

                return counterparty_wallet_id_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | UUID, data)

        counterparty_wallet_id = _parse_counterparty_wallet_id(d.pop("counterpartyWalletId"))

        def _parse_hold_id(data: object) -> None | UUID:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                hold_id_type_0 = UUID(data)

                return hold_id_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | UUID, data)

        hold_id = _parse_hold_id(d.pop("holdId"))

        def _parse_reverses_id(data: object) -> None | UUID:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                reverses_id_type_0 = UUID(data)

                return reverses_id_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | UUID, data)

        reverses_id = _parse_reverses_id(d.pop("reversesId"))

        def _parse_idempotency_key(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        idempotency_key = _parse_idempotency_key(d.pop("idempotencyKey"))

        reference = d.pop("reference")

        description = d.pop("description")

        metadata = OperationMetadata.from_dict(d.pop("metadata"))

        created_at = datetime.datetime.fromisoformat(d.pop("createdAt"))

        operation = cls(
            id=id,
            wallet_id=wallet_id,
            sequence=sequence,
            operation_type=operation_type,
            amount=amount,
            currency=currency,
            status=status,
            reason=reason,
            balance=balance,
            transfer_id=transfer_id,
            counterparty_wallet_id=counterparty_wallet_id,
            hold_id=hold_id,
            reverses_id=reverses_id,
            idempotency_key=idempotency_key,
            reference=reference,
            description=description,
            metadata=metadata,
            created_at=created_at,
        )

        operation.additional_properties = d
        return operation

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
