"""Store each subscriber's position in the log and its failures; parking.py stores the refused events."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import connection, connections, transaction
from django.utils.timezone import now
from uuid_utils.compat import uuid7

from wallets.advisory_locks import LockClass, lock_key
from wallets.events import log, parking
from wallets.events.cloudevents import Event
from wallets.events.log import Position
from wallets.events.parking import Parked
from wallets.events.retries import (
    BEHIND,
    MAX_SUBSCRIBER_PAUSE_SECONDS,
    MIN_FAILED_WALLETS,
    Failure,
    longest_pause,
    pause,
)
from wallets.models import Delivery, Subscriber

MAX_KEPT_DELIVERIES: Final = 1000  # deliveries of each webhook
BROKER_NAMES: Final = ("kafka", "rabbitmq")  # reserved: no webhook may have these names

# Seconds since the commit of the next entry to deliver; 0 if there is none.
LAG: Final = """
    coalesce(extract(epoch FROM greatest(clock_timestamp() - coalesce(after_at, (
        SELECT min(created_at) FROM (
            (SELECT created_at FROM operation
             WHERE transaction_id >= begin_xid ORDER BY transaction_id LIMIT 1)
            UNION ALL
            (SELECT created_at FROM wallet_change
             WHERE transaction_id >= begin_xid ORDER BY transaction_id LIMIT 1)
        ) AS next
    )), interval '0')), 0)::float
"""
_DELIVERY_STATES: Final = f"""
    SELECT name, is_enabled, {LAG},
        (SELECT count(DISTINCT wallet_id) FROM parked_event
         WHERE subscriber_id = subscriber.id AND status = 'WAITING'),
        (SELECT count(*) FROM parked_event WHERE subscriber_id = subscriber.id AND status = 'DEAD')
    FROM subscriber WHERE %(names)s::text[] IS NULL OR name = ANY(%(names)s::text[]) ORDER BY name
"""  # noqa: S608 - of constants


class Overtaken(Exception):
    """Since the subscriber was read, another relay has moved its position, or an operator has removed it."""


@dataclass(frozen=True, slots=True)
class DeliveryBatch:
    """The events of one delivery attempt: new ones, and parked ones whose retry is due."""

    subscriber: Subscriber
    position: Position  # in the log, after all of these events
    fresh: Sequence[Event] = ()  # new events, in the order of the log
    behind: Sequence[Event] = ()  # new events of wallets whose parked event has no position: park these too
    parked: Sequence[Parked] = ()

    @property
    def events(self) -> list[Event]:
        """The events to send. Those that failed before come last: they may fail again."""
        first = [event for each in self.parked if not each.attempts for event in each.events]
        last = [event for each in self.parked if each.attempts for event in each.events]
        return [*first, *self.fresh, *last]

    @property
    def suspects(self) -> set[UUID]:
        """The wallets of events that failed before: their events share no message with other wallets."""
        return {event.wallet_id for each in self.parked if each.attempts for event in each.events}

    @property
    def tried_before(self) -> set[str]:
        """The ids of events that failed before: their failure is no evidence against the subscriber."""
        return {each.event_id for each in self.parked if each.attempts}


def position_of(subscriber: Subscriber) -> Position:
    after = (
        (subscriber.after_at, subscriber.after_id) if subscriber.after_at and subscriber.after_id else None
    )
    end = None if subscriber.end_xid is None else int(subscriber.end_xid)
    return Position(int(subscriber.begin_xid), end, after)


def from_now_on() -> dict[str, Any]:
    """Return the columns of a new subscriber that gets only entries committed from now on."""
    return {"begin_xid": str(log.horizon()), "end_xid": None, "after_at": None, "after_id": None}


def from_the_beginning() -> dict[str, Any]:
    """Return the columns of a new subscriber that gets the whole log."""
    return {"begin_xid": "0", "end_xid": None, "after_at": None, "after_id": None}


def broker(name: str) -> Subscriber:
    """Get the broker's subscriber; the first call creates it, at the current end of the log."""
    found = Subscriber.objects.filter(name=name).first()
    if found is None:
        found, _ = Subscriber.objects.get_or_create(
            name=name, defaults={"id": uuid7(), "kind": Subscriber.Kind.BROKER, **from_now_on()}
        )
    return found


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """A subscriber's lag and failures, as metrics, API and admin show them."""

    name: str
    is_enabled: bool
    lag: float  # seconds
    parked: int  # wallets with waiting events
    dead: int  # events given up


def standings(names: Collection[str] | None = None) -> list[DeliveryState]:
    """Return the delivery state of the subscribers with these names, or of all subscribers."""
    with connection.cursor() as cursor:
        cursor.execute(_DELIVERY_STATES, {"names": None if names is None else list(names)})
        return [DeliveryState(*row) for row in cursor.fetchall()]


# --- After an attempt -------------------------------------------------------------------------------
def settle(
    batch: DeliveryBatch, failures: Mapping[str, Failure], deliveries: Sequence[Delivery] = ()
) -> None:
    """Record which events were delivered, and the new position in the log.

    In one transaction: a wallet is parked before the position passes its event. Raises Overtaken if the
    subscriber was removed or its position has changed since it was read.
    """
    subscriber = batch.subscriber
    with transaction.atomic():
        current = Subscriber.objects.select_for_update(no_key=True).filter(id=subscriber.id).first()
        # An operator has removed the subscriber, or another relay has moved its position.
        if current is None or position_of(current) != position_of(subscriber):
            raise Overtaken
        Subscriber.objects.filter(id=subscriber.id).update(**_columns(batch.position))
        parking.settle(subscriber, batch.parked, failures)
        parking.park(
            subscriber,
            [*batch.fresh, *batch.behind],
            {**failures, **{event.id: BEHIND for event in batch.behind}},
        )
        Delivery.objects.bulk_create(deliveries)
        # If an operator has meanwhile changed the URL or reset the failures, this attempt is no evidence.
        if (current.url, current.failing_since) == (subscriber.url, subscriber.failing_since):
            _note_health(current, batch, failures)
            if not subscriber.is_enabled:
                disable(subscriber, "The webhook answered 410 Gone.")


_FORGET_DELIVERIES: Final = """
    DELETE FROM delivery USING (
        SELECT id, (
            SELECT id FROM delivery WHERE subscriber_id = subscriber.id ORDER BY id DESC OFFSET %s LIMIT 1
        ) AS newest FROM subscriber
    ) AS old WHERE subscriber_id = old.id AND delivery.id <= newest
"""


def forget_old_deliveries(using: str) -> None:
    """Delete all but the newest deliveries of each webhook, unless another relay is doing so now."""
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [lock_key(LockClass.OLD_DELIVERIES)])
        if cursor.fetchone()[0]:
            cursor.execute(_FORGET_DELIVERIES, [MAX_KEPT_DELIVERIES])


def _columns(position: Position) -> dict[str, Any]:
    at, id = position.after or (None, None)
    end = None if position.end is None else str(position.end)
    return {"begin_xid": str(position.begin), "end_xid": end, "after_at": at, "after_id": id}


def _note_health(subscriber: Subscriber, batch: DeliveryBatch, failures: Mapping[str, Failure]) -> None:
    """Record whether the subscriber accepts events; pause it if it has refused events of several wallets."""
    tried = [event for event in batch.events if event.id in failures and failures[event.id].was_tried]
    is_news = bool(subscriber.retry_at) or not batch.tried_before.issuperset(event.id for event in tried)
    if len(batch.events) > len(failures):
        _note_success(subscriber)
    elif tried and (is_news or subscriber.failing_since):
        wallets = len({event.wallet_id for event in tried})
        _note_failure(subscriber, failures[tried[0].id].error, wallets, is_news)


def _note_success(subscriber: Subscriber) -> None:
    if subscriber.retry_at:
        parking.make_due(subscriber)
    subscriber.failures, subscriber.failing_since, subscriber.retry_at = 0, None, None
    subscriber.delivered_at = now()
    subscriber.save(update_fields=["failures", "failing_since", "retry_at", "delivered_at"])


def _note_failure(subscriber: Subscriber, error: str, wallets: int, is_news: bool) -> None:
    """Record a failure. Repeated failures of the same events (not `is_news`) never pause the subscriber."""
    subscriber.failing_since = subscriber.failing_since or now()
    subscriber.last_error = error
    subscriber.failures += is_news
    if is_news and max(wallets, subscriber.failures) >= MIN_FAILED_WALLETS:
        times = subscriber.failures + 1 - MIN_FAILED_WALLETS
        max_seconds = min(MAX_SUBSCRIBER_PAUSE_SECONDS, longest_pause(subscriber))
        subscriber.retry_at = now() + timedelta(seconds=pause(times, max_seconds))
    if subscriber.kind == Subscriber.Kind.WEBHOOK and _has_failed_for_too_long(subscriber.failing_since):
        subscriber.is_enabled = False
        subscriber.disabled_because = f"No event was accepted for {settings.EVENTS_RETRY_DAYS} days."
    fields = ["failures", "failing_since", "retry_at", "last_error", "is_enabled", "disabled_because"]
    subscriber.save(update_fields=fields)


def _has_failed_for_too_long(since: datetime) -> bool:
    return now() - since > timedelta(days=settings.EVENTS_RETRY_DAYS)


def disable(subscriber: Subscriber, because: str) -> None:
    """Stop delivery until an operator enables the subscriber; it then resumes at its position."""
    Subscriber.objects.filter(id=subscriber.id).update(is_enabled=False, disabled_because=because)


def enable(subscriber: Subscriber) -> None:
    """Resume delivery now, with all failures reset."""
    with transaction.atomic():
        Subscriber.objects.filter(id=subscriber.id).update(is_enabled=True, disabled_because="")
        reset_failures(subscriber)


def reset_failures(subscriber: Subscriber) -> None:
    """Reset the failures and make all waiting events due now."""
    Subscriber.objects.filter(id=subscriber.id).update(failures=0, failing_since=None, retry_at=None)
    parking.restart(subscriber)
