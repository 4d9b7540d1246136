"""Store the wallets whose events wait because the subscriber refused one: each with its place in the log.

The events themselves stay in the log, which is append-only, and are rendered again for each attempt. A
parked wallet has one row, however many events come after the refused one.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import dropwhile
from typing import Any, Final
from uuid import UUID

import orjson
from django.conf import settings
from django.db import connection
from django.db.models import QuerySet
from django.utils.timezone import now

from wallets.events import cloudevents, log
from wallets.events.cloudevents import Event
from wallets.events.log import Place, Position
from wallets.events.retries import BEHIND, Failure, longest_pause, pause
from wallets.models import ParkedEvent, Subscriber

MAX_WALLETS_PER_ROUND: Final = 50  # parked wallets that are retried in one round
MAX_ENTRIES_PER_WALLET: Final = 20  # of each parked wallet, in one round

# The first row of each wallet whose next attempt is due, those with the fewest attempts first.
_DUE: Final = """
    SELECT id, event_id, wallet_id, attempts, entry_at, entry_id FROM parked_event AS parked
    WHERE subscriber_id = %(id)s AND status = 'WAITING' AND next_attempt_at <= %(now)s AND NOT EXISTS (
        SELECT FROM parked_event AS earlier
        WHERE earlier.subscriber_id = parked.subscriber_id AND earlier.wallet_id = parked.wallet_id
            AND earlier.status = 'WAITING' AND earlier.id < parked.id
    )
    ORDER BY attempts, next_attempt_at, id LIMIT %(limit)s
"""
# A row with a place (entry_at) covers all later events of its wallet; a row without one only its own event.
_WAITING: Final = """
    SELECT wallet_id, bool_or(entry_at IS NOT NULL) FROM parked_event
    WHERE subscriber_id = %(id)s AND status = 'WAITING' AND wallet_id = ANY(%(wallets)s::uuid[])
    GROUP BY wallet_id
"""
_PARK: Final = """
    INSERT INTO parked_event (
        subscriber_id, event_id, type, wallet_id, entry_at, entry_id, attempts, next_attempt_at, last_error,
        created_at
    )
    SELECT %(id)s, event_id, type, wallet_id, entry_at, entry_id, attempts,
        %(now)s + pause * interval '1 second', error, coalesce(since, %(now)s)
    FROM json_to_recordset(%(new)s::json) AS new (
        event_id text, type text, wallet_id uuid, entry_at timestamptz, entry_id uuid, attempts integer,
        pause float, error text, since timestamptz
    )
    -- If the subscriber was set back, a row may exist for the event alone: now it covers the later ones too.
    ON CONFLICT (subscriber_id, event_id) DO UPDATE SET
        entry_at = excluded.entry_at, entry_id = excluded.entry_id, status = 'WAITING'
"""
# An event that has waited for too long is dead. If a row moves to another event, its wait starts
# at the time of that event, or when the wallet was parked, whichever is later.
_MOVE: Final = """
    UPDATE parked_event SET
        event_id = moved.event_id, type = moved.type, attempts = moved.attempts, last_error = error,
        next_attempt_at = %(now)s + pause * interval '1 second', created_at = since,
        status = CASE WHEN is_dead THEN 'DEAD' ELSE status END,
        entry_at = CASE WHEN NOT is_dead AND parked_event.entry_at IS NOT NULL THEN moved.entry_at END,
        entry_id = CASE WHEN NOT is_dead AND parked_event.entry_id IS NOT NULL THEN moved.entry_id END
    FROM (
        SELECT new.*, since,
            was_tried AND %(now)s + pause * interval '1 second' - since > %(max_wait)s AS is_dead
        FROM json_to_recordset(%(moved)s::json) AS new (
            parked_id bigint, event_id text, type text, entry_at timestamptz, entry_id uuid, attempts integer,
            pause float, error text, was_tried boolean
        )
        JOIN parked_event ON parked_event.id = parked_id
        CROSS JOIN LATERAL (SELECT CASE WHEN parked_event.event_id = new.event_id THEN created_at
            ELSE greatest(created_at, new.entry_at) END) AS age (since)
    ) AS moved
    WHERE parked_event.id = parked_id
    RETURNING parked_event.id, status, created_at
"""
# The log has an expired hold at the time of its expiry. This may be microseconds before an operation that
# was committed earlier, and the place of a parked wallet may be between the two.
_SET_BACK: Final = """
    UPDATE parked_event SET event_id = new.event_id, type = new.type, attempts = 0,
        entry_at = new.entry_at, entry_id = new.entry_id
    FROM json_to_recordset(%(new)s::json) AS new (
        event_id text, type text, wallet_id uuid, entry_at timestamptz, entry_id uuid
    )
    WHERE subscriber_id = %(id)s AND parked_event.wallet_id = new.wallet_id
        AND (parked_event.entry_at, parked_event.entry_id) > (new.entry_at, new.entry_id)
"""


@dataclass(frozen=True, slots=True)
class Parked:
    """A parked row, with the events to deliver for it in this round."""

    id: int
    event_id: str
    attempts: int
    events: Sequence[Event]
    next: Event | None = None  # the first event after these, if more wait


def waiting(subscriber: Subscriber) -> QuerySet[ParkedEvent]:
    return ParkedEvent.objects.filter(subscriber=subscriber, status=ParkedEvent.Status.WAITING)


def dead(subscriber: Subscriber) -> QuerySet[ParkedEvent]:
    return ParkedEvent.objects.filter(subscriber=subscriber, status=ParkedEvent.Status.DEAD)


def waiting_wallets(subscriber: Subscriber, wallet_ids: Collection[UUID]) -> dict[UUID, bool]:
    """Return which of these wallets are parked. True: a row with a place covers all later events."""
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, {"id": subscriber.id, "wallets": list(wallet_ids)})
        return dict(cursor.fetchall())


# --- Before an attempt ------------------------------------------------------------------------------
def due(subscriber: Subscriber, upto: Position, limit: int = MAX_WALLETS_PER_ROUND) -> list[Parked]:
    """Return the rows to retry now, each with the events of a few entries, none after the position `upto`."""
    with connection.cursor() as cursor:
        cursor.execute(_DUE, {"id": subscriber.id, "now": now(), "limit": limit})
        rows = cursor.fetchall()
    places = {wallet_id: (at, id) for _, _, wallet_id, _, at, id in rows if at}
    later = _events_by_wallet(places, upto)
    alone = cloudevents.find({event_id: wallet_id for _, event_id, wallet_id, _, at, _ in rows if not at})
    return [
        _from_position(id, event_id, attempts, later[wallet_id], subscriber.types)
        if at
        else Parked(id, event_id, attempts, [alone[event_id]])
        for id, event_id, wallet_id, attempts, at, _ in rows
    ]


def _events_by_wallet(places: Mapping[UUID, Place], upto: Position) -> dict[UUID, list[Event]]:
    """Read each wallet's events from its place on, of one entry more than this round delivers."""
    found: dict[UUID, list[Event]] = defaultdict(list)
    for event in cloudevents.events_of(log.read_wallets(places, upto, MAX_ENTRIES_PER_WALLET + 1)):
        found[event.wallet_id].append(event)
    return found


def _from_position(
    id: int, event_id: str, attempts: int, events: Sequence[Event], types: Collection[str]
) -> Parked:
    """Build the row with its events from `event_id` on: earlier events of the entry were delivered."""
    places = list(dict.fromkeys(event.place for event in events))
    end = places[MAX_ENTRIES_PER_WALLET] if len(places) > MAX_ENTRIES_PER_WALLET else None
    left = list(dropwhile(lambda event: event.id != event_id, events)) or list(events)
    wanted = [event for event in left if event.place != end and (not types or event.type in types)]
    return Parked(id, event_id, attempts, wanted, next((each for each in left if each.place == end), None))


def set_back(subscriber: Subscriber, events: Sequence[Event]) -> None:
    """Move a parked wallet's place back to its first event here, if that event is earlier."""
    first = _first_of_each_wallet(events)
    with connection.cursor() as cursor:
        cursor.execute(_SET_BACK, {"id": subscriber.id, "new": _json(map(_position, first))})


# --- After an attempt -------------------------------------------------------------------------------
def park(subscriber: Subscriber, events: Sequence[Event], failures: Mapping[str, Failure]) -> None:
    """Park each wallet of a failed event, from its first failed event on."""
    first = _first_of_each_wallet([event for event in events if event.id in failures])
    _insert(subscriber, [_new(event, failures[event.id]) for event in first])


def settle(subscriber: Subscriber, tried: Sequence[Parked], failures: Mapping[str, Failure]) -> None:
    """Record the progress of the retried wallets; delete the rows of those with no events left."""
    targets = {each.id: _undelivered(each, failures) for each in tried}
    done = [id for id, left in targets.items() if not left]
    ParkedEvent.objects.filter(id__in=done).delete()
    max_pause_seconds = longest_pause(subscriber)
    moved = [
        row
        for each in tried
        if (left := targets[each.id])
        and (row := _moved(each, left[0], failures.get(left[0].id), max_pause_seconds))
    ]
    for id, since in _move(subscriber, moved):
        if behind := targets[id][1:2]:
            _insert(subscriber, [_new(behind[0], BEHIND, max(since, behind[0].place[0]))])


def _undelivered(parked: Parked, failures: Mapping[str, Failure]) -> list[Event]:
    """Return the first undelivered event, and the known events after it."""
    behind = [*parked.events, *([parked.next] if parked.next else [])]
    return list(dropwhile(lambda event: event.id not in failures and event is not parked.next, behind))


def _moved(
    parked: Parked, to: Event, failure: Failure | None, max_pause_seconds: float
) -> dict[str, Any] | None:
    """Return the row's new columns; None if nothing changes, as its event was not tried."""
    is_same, was_tried = to.id == parked.event_id, bool(failure and failure.was_tried)
    if is_same and not was_tried:
        return None
    attempts = (parked.attempts if is_same else 0) + was_tried
    return _position(to) | {
        "parked_id": parked.id,
        "attempts": attempts,
        "pause": pause(attempts, max_pause_seconds) if was_tried else 0,
        "error": failure.error if failure else "",
        "was_tried": was_tried,
    }


def _move(subscriber: Subscriber, moved: Sequence[dict[str, Any]]) -> list[tuple[int, datetime]]:
    """Move the rows; return those that became dead letters, and since when each had waited."""
    if not moved:
        return []
    _delete_duplicates(subscriber, moved)
    is_broker = subscriber.kind == Subscriber.Kind.BROKER
    parameters: dict[str, Any] = {
        "now": now(),
        "max_wait": timedelta.max if is_broker else timedelta(days=settings.EVENTS_RETRY_DAYS),
        "moved": _json(moved),
    }
    with connection.cursor() as cursor:
        cursor.execute(_MOVE, parameters)
        return [(id, since) for id, status, since in cursor.fetchall() if status == ParkedEvent.Status.DEAD]


def _delete_duplicates(subscriber: Subscriber, moved: Sequence[dict[str, Any]]) -> None:
    """Delete rows for the same events, which a relay before version 7 may have parked one by one."""
    same = ParkedEvent.objects.filter(subscriber=subscriber, event_id__in=[row["event_id"] for row in moved])
    same.exclude(id__in=[row["parked_id"] for row in moved]).delete()


def _insert(subscriber: Subscriber, new: Sequence[dict[str, Any]]) -> None:
    if new:
        with connection.cursor() as cursor:
            cursor.execute(_PARK, {"id": subscriber.id, "now": now(), "new": _json(new)})


def _new(event: Event, failure: Failure, since: datetime | None = None) -> dict[str, Any]:
    return _position(event) | {
        "attempts": int(failure.was_tried),
        "pause": pause(1) if failure.was_tried else 0,
        "error": failure.error,
        "since": since,
    }


def _position(event: Event) -> dict[str, Any]:
    at, id = event.place
    return {
        "event_id": event.id,
        "type": event.type,
        "wallet_id": event.wallet_id,
        "entry_at": at,
        "entry_id": id,
    }


def _first_of_each_wallet(events: Sequence[Event]) -> list[Event]:
    return list({event.wallet_id: event for event in reversed(events)}.values())


def _json(rows: Any) -> str:
    return orjson.dumps(list(rows)).decode()


# --- Changes of due times ---------------------------------------------------------------------------
def make_due(subscriber: Subscriber) -> None:
    """Make all waiting rows due: the subscriber accepts events again."""
    waiting(subscriber).filter(next_attempt_at__gt=now()).update(next_attempt_at=now())


def restart(subscriber: Subscriber) -> None:
    """Make all waiting rows due, and restart their EVENTS_RETRY_DAYS."""
    waiting(subscriber).update(created_at=now(), next_attempt_at=now())


def replay(subscriber: Subscriber) -> int:
    """Make all dead letters due, each in the order of its wallet; return their number."""
    reset: dict[str, Any] = {"attempts": 0, "created_at": now(), "next_attempt_at": now()}
    return dead(subscriber).update(status=ParkedEvent.Status.WAITING, **reset)
