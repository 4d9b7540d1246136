from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.event_type import EventType

if TYPE_CHECKING:
    from ..models.dead_letter_event import DeadLetterEvent


T = TypeVar("T", bound="DeadLetter")


@_attrs_define
class DeadLetter:
    """
    Attributes:
        event_id (str):
        type_ (EventType):
        wallet_id (UUID):
        attempts (int):
        last_error (str):
        created_at (datetime.datetime):
        event (DeadLetterEvent): The event as it was sent.
    """

    event_id: str
    type_: EventType
    wallet_id: UUID
    attempts: int
    last_error: str
    created_at: datetime.datetime
    event: DeadLetterEvent
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        event_id = self.event_id

        type_ = self.type_.value

        wallet_id = str(self.wallet_id)

        attempts = self.attempts

        last_error = self.last_error

        created_at = self.created_at.isoformat()

        event = self.event.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "eventId": event_id,
                "type": type_,
                "walletId": wallet_id,
                "attempts": attempts,
                "lastError": last_error,
                "createdAt": created_at,
                "event": event,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.dead_letter_event import DeadLetterEvent  # noqa: PLC0415

        d = dict(src_dict)
        event_id = d.pop("eventId")

        type_ = EventType(d.pop("type"))

        wallet_id = UUID(d.pop("walletId"))

        attempts = d.pop("attempts")

        last_error = d.pop("lastError")

        created_at = datetime.datetime.fromisoformat(d.pop("createdAt"))

        event = DeadLetterEvent.from_dict(d.pop("event"))

        dead_letter = cls(
            event_id=event_id,
            type_=type_,
            wallet_id=wallet_id,
            attempts=attempts,
            last_error=last_error,
            created_at=created_at,
            event=event,
        )

        dead_letter.additional_properties = d
        return dead_letter

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
