from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar, cast
from uuid import UUID

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.event_type import EventType

T = TypeVar("T", bound="Webhook")


@_attrs_define
class Webhook:
    """
    Attributes:
        id (UUID):
        name (str):
        url (str):
        types (list[EventType]): The types of events to deliver; an empty list means all types.
        batch (int): The maximum number of events in one request.
        is_enabled (bool):
        disabled_because (str):
        failing_since (datetime.datetime | None):
        last_error (str):
        retry_at (datetime.datetime | None): The time of the next attempt while deliveries fail.
        delivered_at (datetime.datetime | None): The time of the last successful delivery.
        former_secret_until (datetime.datetime | None): Until when the former secret signs too.
        lag (float): Seconds since the commit of the next event to deliver; 0 if there is none.
        parked (int): Wallets whose next event waits for another attempt; their later events wait behind it.
        dead (int): The number of dead letters.
        created_at (datetime.datetime):
    """

    id: UUID
    name: str
    url: str
    types: list[EventType]
    batch: int
    is_enabled: bool
    disabled_because: str
    failing_since: datetime.datetime | None
    last_error: str
    retry_at: datetime.datetime | None
    delivered_at: datetime.datetime | None
    former_secret_until: datetime.datetime | None
    lag: float
    parked: int
    dead: int
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

        is_enabled = self.is_enabled

        disabled_because = self.disabled_because

        failing_since: None | str
        if isinstance(self.failing_since, datetime.datetime):
            failing_since = self.failing_since.isoformat()
        else:
            failing_since = self.failing_since

        last_error = self.last_error

        retry_at: None | str
        if isinstance(self.retry_at, datetime.datetime):
            retry_at = self.retry_at.isoformat()
        else:
            retry_at = self.retry_at

        delivered_at: None | str
        if isinstance(self.delivered_at, datetime.datetime):
            delivered_at = self.delivered_at.isoformat()
        else:
            delivered_at = self.delivered_at

        former_secret_until: None | str
        if isinstance(self.former_secret_until, datetime.datetime):
            former_secret_until = self.former_secret_until.isoformat()
        else:
            former_secret_until = self.former_secret_until

        lag = self.lag

        parked = self.parked

        dead = self.dead

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
                "isEnabled": is_enabled,
                "disabledBecause": disabled_because,
                "failingSince": failing_since,
                "lastError": last_error,
                "retryAt": retry_at,
                "deliveredAt": delivered_at,
                "formerSecretUntil": former_secret_until,
                "lag": lag,
                "parked": parked,
                "dead": dead,
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

        is_enabled = d.pop("isEnabled")

        disabled_because = d.pop("disabledBecause")

        def _parse_failing_since(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                failing_since_type_0 = datetime.datetime.fromisoformat(data)

                return failing_since_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        failing_since = _parse_failing_since(d.pop("failingSince"))

        last_error = d.pop("lastError")

        def _parse_retry_at(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                retry_at_type_0 = datetime.datetime.fromisoformat(data)

                return retry_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        retry_at = _parse_retry_at(d.pop("retryAt"))

        def _parse_delivered_at(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                delivered_at_type_0 = datetime.datetime.fromisoformat(data)

                return delivered_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        delivered_at = _parse_delivered_at(d.pop("deliveredAt"))

        def _parse_former_secret_until(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                former_secret_until_type_0 = datetime.datetime.fromisoformat(data)

                return former_secret_until_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        former_secret_until = _parse_former_secret_until(d.pop("formerSecretUntil"))

        lag = d.pop("lag")

        parked = d.pop("parked")

        dead = d.pop("dead")

        created_at = datetime.datetime.fromisoformat(d.pop("createdAt"))

        webhook = cls(
            id=id,
            name=name,
            url=url,
            types=types,
            batch=batch,
            is_enabled=is_enabled,
            disabled_because=disabled_because,
            failing_since=failing_since,
            last_error=last_error,
            retry_at=retry_at,
            delivered_at=delivered_at,
            former_secret_until=former_secret_until,
            lag=lag,
            parked=parked,
            dead=dead,
            created_at=created_at,
        )

        webhook.additional_properties = d
        return webhook

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
