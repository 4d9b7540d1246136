from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar, cast
from uuid import UUID

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.event_type import EventType

T = TypeVar("T", bound="RegisteredWebhook")


@_attrs_define
class RegisteredWebhook:
    """
    Attributes:
        id (UUID):
        name (str):
        url (str):
        types (list[EventType]): The types of events to deliver; an empty list means all types.
        batch (int): The maximum number of events in one request.
        secret (None | str): The signing secret. Store it: a replay shows it for one hour, unless it was rotated.
        created_at (datetime.datetime):
    """

    id: UUID
    name: str
    url: str
    types: list[EventType]
    batch: int
    secret: None | str
    created_at: datetime.datetime
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        id = str(self.id)

        name = self.name

        url = self.url

        types = []
        for types_item_data in self.types:
            types_item = types_item_data.value
            types.append(types_item)

        batch = self.batch

        secret: None | str
        secret = self.secret

        created_at = self.created_at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "id": id,
                "name": name,
                "url": url,
                "types": types,
                "batch": batch,
                "secret": secret,
                "createdAt": created_at,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        id = UUID(d.pop("id"))

        name = d.pop("name")

        url = d.pop("url")

        types = []
        _types = d.pop("types")
        for types_item_data in _types:
            types_item = EventType(types_item_data)

            types.append(types_item)

        batch = d.pop("batch")

        def _parse_secret(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        secret = _parse_secret(d.pop("secret"))

        created_at = datetime.datetime.fromisoformat(d.pop("createdAt"))

        registered_webhook = cls(
            id=id,
            name=name,
            url=url,
            types=types,
            batch=batch,
            secret=secret,
            created_at=created_at,
        )

        registered_webhook.additional_properties = d
        return registered_webhook

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
