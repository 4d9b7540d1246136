"""Render the log's entries as CloudEvents 1.0 in JSON; docs/asyncapi.yaml describes each type.

An event has the same id and content each time it is rendered: a subscriber recognizes a duplicate by its id.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson
from django.conf import settings
from django.utils.timezone import now
from pydantic.alias_generators import to_camel
from uuid_utils.compat import uuid7

from wallets import money
from wallets.contract.fields import format_time
from wallets.contract.responses import hold_body, operation_body
from wallets.events import log
from wallets.events.log import ChangeEntry, LogItem, Place
from wallets.ledger import HoldState, Record, holds_by_id, placed_hold
from wallets.models import Operation, Wallet, WalletChange
from wallets.operation_types import WITHOUT_SEQUENCE, signed

# The suffix of each type's event ids: one row of the log can be several events.
TYPES: Final = {
    "wallet.opened": "opened",
    "wallet.changed": "changed",
    "wallet.operation.completed": "completed",
    "wallet.operation.rejected": "rejected",
    "wallet.balance.changed": "balance",
    "wallet.hold.placed": "placed",
    "wallet.hold.captured": "captured",
    "wallet.hold.voided": "voided",
    "wallet.hold.expired": "expired",
}
Finder = Callable[[Collection[tuple[UUID, UUID]]], list[LogItem]]
# By the suffix of an event's id, the function that finds its entry; entries of other suffixes are operations.
_FIND: Final[dict[str, Finder]] = {
    "opened": log.find_changes,
    "changed": log.find_changes,
    "expired": log.find_expiries,
}
CONTENT_TYPE: Final = "application/cloudevents+json"
_NO_WALLET: Final = UUID(int=0)
MAX_CACHED_CURRENCIES: Final = 100_000  # one for each wallet, in memory

_currencies: dict[UUID, str] = {}  # never outdated: a wallet's currency cannot change


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    type: str
    wallet_id: UUID
    content: bytes  # the CloudEvent as JSON
    place: Place = log.BEGINNING  # of the log entry that the event describes


def events_of(entries: Sequence[LogItem], types: Collection[str] = ()) -> list[Event]:
    """Render log entries as events, in the order of the entries; with `types`, only events of these types."""
    currencies = _find_currencies({entry.wallet_id for entry in entries})
    ended = {(entry.wallet_id, hold_id) for entry in entries if (hold_id := _ended_hold(entry))}
    holds = holds_by_id(ended)
    return [
        _event_of(entry, type, data)
        for entry in entries
        for type, data in _types_and_data(entry, currencies[entry.wallet_id], holds)
        if not types or type in types
    ]


def find(wallets: Mapping[str, UUID]) -> dict[str, Event]:
    """Render the events with these ids again, from the log; `wallets` maps each id to its wallet."""
    keys: dict[Finder, set[tuple[UUID, UUID]]] = defaultdict(set)
    for event_id, wallet_id in wallets.items():
        id, _, end = event_id.partition(":")
        keys[_FIND.get(end, log.find_operations)].add((wallet_id, UUID(id)))
    entries = [entry for finder, of_finder in keys.items() for entry in finder(of_finder)]
    return {event.id: event for event in events_of(entries) if event.id in wallets}


def test_event() -> Event:
    """Make an event without data, with which a user checks that requests reach a webhook."""
    return _event(f"{uuid7()}:test", "webhook.test", (now(), _NO_WALLET), {}, None)


def _event_of(entry: LogItem, type: str, data: dict[str, Any]) -> Event:
    id = f"{(isinstance(entry, ChangeEntry) and entry.expired_hold_id) or entry.id}:{TYPES[type]}"
    return _event(id, type, log.place_of(entry), data, entry.wallet_id)


def _event(id: str, type: str, place: Place, data: dict[str, Any], wallet_id: UUID | None) -> Event:
    event = {
        "specversion": "1.0",
        "id": id,
        "source": settings.EVENTS_SOURCE,
        "type": type,
        **({"subject": wallet_id} if wallet_id else {}),
        "time": format_time(place[0]),
        "datacontenttype": "application/json",
        "data": data,
    }
    return Event(id, type, wallet_id or _NO_WALLET, orjson.dumps(event), place)


def _types_and_data(
    entry: LogItem, currency: str, holds: dict[UUID, HoldState]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the type and data of each of the entry's events, in the order of delivery."""
    if isinstance(entry, ChangeEntry):
        yield _of_change(entry, currency, holds)
    elif entry.status == Operation.Status.REJECTED:
        yield "wallet.operation.rejected", operation_body(entry, currency)
    elif entry.type in WITHOUT_SEQUENCE and entry.hold_id:
        yield "wallet.hold.voided", hold_body(holds[entry.hold_id], currency)
    elif entry.type in WITHOUT_SEQUENCE:
        yield "wallet.hold.placed", hold_body(placed_hold(entry), currency)
    else:
        yield "wallet.operation.completed", operation_body(entry, currency)
        yield "wallet.balance.changed", _balance(entry, currency)
        if entry.hold_id:
            yield "wallet.hold.captured", hold_body(holds[entry.hold_id], currency)


def _of_change(
    change: ChangeEntry, currency: str, holds: dict[UUID, HoldState]
) -> tuple[str, dict[str, Any]]:
    if hold_id := change.expired_hold_id:
        return "wallet.hold.expired", hold_body(holds[hold_id], currency)
    wallet = {"walletId": change.wallet_id, "currency": currency}
    if change.type == WalletChange.Type.OPENED:
        return "wallet.opened", wallet | {
            "externalId": change.changes.get("external_id"),  # opened before there were any
            "label": change.changes["label"],
            "metadata": change.changes["metadata"],
            "overdraftLimit": change.changes["overdraft_limit"],
            "maxBalance": change.changes["max_balance"],
        }
    # Only operators may see who changed the wallet, and why.
    changes = {to_camel(name): {"from": old, "to": new} for name, (old, new) in change.changes.items()}
    return "wallet.changed", wallet | {"changes": changes}


def _balance(entry: Record, currency: str) -> dict[str, Any]:
    balance = entry.balance_after or Decimal(0)
    change = signed(entry.type, entry.amount)
    return {
        "walletId": entry.wallet_id,
        "currency": currency,
        "balance": money.format_amount(balance, currency),
        "change": money.format_amount(change, currency),
        "sequence": entry.sequence,
        "operationId": entry.id,
    }


def _ended_hold(entry: LogItem) -> UUID | None:
    """Return the hold that the entry ends. Its row is final: an ended hold never changes again."""
    if isinstance(entry, ChangeEntry):
        return entry.expired_hold_id
    return entry.hold_id if entry.status == Operation.Status.COMPLETED else None


def _find_currencies(wallet_ids: set[UUID]) -> dict[UUID, str]:
    """Return a new dictionary: another thread may clear the shared one at any time."""
    found = {id: currency for id in wallet_ids if (currency := _currencies.get(id))}
    if missing := wallet_ids - found.keys():
        found.update(Wallet.objects.filter(id__in=missing).values_list("id", "currency"))
        if len(_currencies) > MAX_CACHED_CURRENCIES:
            _currencies.clear()
        _currencies.update(found)
    return found
