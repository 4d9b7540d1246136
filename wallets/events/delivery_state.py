"""The position of each subscriber in the log, and whether it takes its events (the refused: parking.py)."""

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
BROKER_NAMES: Final = ("kafka", "rabbitmq")  # names of theirs: no webhook's

# Seconds since what is to be delivered next was committed; 0 where there is nothing.
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
_STANDINGS: Final = f"""
    SELECT name, is_enabled, {LAG},
        (SELECT count(DISTINCT wallet_id) FROM parked_event
         WHERE subscriber_id = subscriber.id AND status = 'WAITING'),
        (SELECT count(*) FROM parked_event WHERE subscriber_id = subscriber.id AND status = 'DEAD')
    FROM subscriber WHERE %(names)s::text[] IS NULL OR name = ANY(%(names)s::text[]) ORDER BY name
"""  # noqa: S608 - of constants


class Overtaken(Exception):
    """Somebody else has delivered meanwhile, or removed the subscriber: what we know of it is old."""


@dataclass(frozen=True, slots=True)
class DeliveryBatch:
    """The events of one attempt: new ones, and some of wallets that wait."""

    subscriber: Subscriber
    position: Position  # of the log, behind all of these
    fresh: Sequence[Event] = ()  # of the log, in its order
    behind: Sequence[Event] = ()  # of the log as well, of wallets with events that wait by themselves
    parked: Sequence[Parked] = ()

    @property
    def events(self) -> list[Event]:
        """The events to send, those with the fewest attempts first: the others may fail again."""
        first = [event for each in self.parked if not each.attempts for event in each.events]
        last = [event for each in self.parked if each.attempts for event in each.events]
        return [*first, *self.fresh, *last]

    @property
    def suspects(self) -> set[UUID]:
        """The wallets of events that failed before: their messages hold no events of other wallets."""
        return {event.wallet_id for each in self.parked if each.attempts for event in each.events}

    @property
    def tried_before(self) -> set[str]:
        """The ids of events that failed before: one more failure says nothing new about the subscriber."""
        return {each.event_id for each in self.parked if each.attempts}


def position_of(subscriber: Subscriber) -> Position:
    after = (
        (subscriber.after_at, subscriber.after_id) if subscriber.after_at and subscriber.after_id else None
    )
    end = None if subscriber.end_xid is None else int(subscriber.end_xid)
    return Position(int(subscriber.begin_xid), end, after)


def from_now_on() -> dict[str, Any]:
    """The position of a new subscriber, as the fields of one: what happens from now on."""
    return {"begin_xid": str(log.horizon()), "end_xid": None, "after_at": None, "after_id": None}


def from_the_beginning() -> dict[str, Any]:
    return {"begin_xid": "0", "end_xid": None, "after_at": None, "after_id": None}


def broker(name: str) -> Subscriber:
    """The subscriber that stands for the broker; told of what happens from its first relay on."""
    found = Subscriber.objects.filter(name=name).first()
    if found is None:
        found, _ = Subscriber.objects.get_or_create(
            name=name, defaults={"id": uuid7(), "kind": Subscriber.Kind.BROKER, **from_now_on()}
        )
    return found


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """How a subscriber fares."""

    name: str
    is_enabled: bool
    lag: float
    parked: int  # wallets that wait
    dead: int


def standings(names: Collection[str] | None = None) -> list[DeliveryState]:
    """Of those with these names, or of all."""
    with connection.cursor() as cursor:
        cursor.execute(_STANDINGS, {"names": None if names is None else list(names)})
        return [DeliveryState(*row) for row in cursor.fetchall()]


# --- After an attempt -------------------------------------------------------------------------------
def settle(load: DeliveryBatch, failures: Mapping[str, Failure], deliveries: Sequence[Delivery] = ()) -> None:
    """Record which events were delivered, and how far the log is read.

    In one transaction: a wallet is parked before the position passes its event. Raises Overtaken.
    """
    subscriber = load.subscriber
    with transaction.atomic():
        now_it_is = Subscriber.objects.select_for_update(no_key=True).filter(id=subscriber.id).first()
        # An operator has removed it, or another relay has delivered and moved its position.
        if now_it_is is None or position_of(now_it_is) != position_of(subscriber):
            raise Overtaken
        Subscriber.objects.filter(id=subscriber.id).update(**_columns(load.position))
        parking.settle(subscriber, load.parked, failures)
        parking.park(
            subscriber,
            [*load.fresh, *load.behind],
            {**failures, **{event.id: BEHIND for event in load.behind}},
        )
        Delivery.objects.bulk_create(deliveries)
        # What an operator has changed meanwhile begins anew: this says nothing of it.
        if (now_it_is.url, now_it_is.failing_since) == (subscriber.url, subscriber.failing_since):
            _note_health(now_it_is, load, failures)
            if not subscriber.is_enabled:
                disable(subscriber, "It answered 410 Gone.")


_FORGET_DELIVERIES: Final = """
    DELETE FROM delivery USING (
        SELECT id, (
            SELECT id FROM delivery WHERE subscriber_id = subscriber.id ORDER BY id DESC OFFSET %s LIMIT 1
        ) AS newest FROM subscriber
    ) AS old WHERE subscriber_id = old.id AND delivery.id <= newest
"""


def forget_old_deliveries(using: str) -> None:
    """Unless another relay is at it."""
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [lock_key(LockClass.OLD_DELIVERIES)])
        if cursor.fetchone()[0]:
            cursor.execute(_FORGET_DELIVERIES, [MAX_KEPT_DELIVERIES])


def _columns(position: Position) -> dict[str, Any]:
    at, id = position.after or (None, None)
    end = None if position.end is None else str(position.end)
    return {"begin_xid": str(position.begin), "end_xid": end, "after_at": at, "after_id": id}


def _note_health(subscriber: Subscriber, load: DeliveryBatch, failures: Mapping[str, Failure]) -> None:
    """Record whether the subscriber takes events; pause it if it has refused those of several wallets."""
    tried = [event for event in load.events if event.id in failures and failures[event.id].was_tried]
    is_news = bool(subscriber.retry_at) or not load.tried_before.issuperset(event.id for event in tried)
    if len(load.events) > len(failures):
        _note_success(subscriber)
    elif tried and (is_news or subscriber.failing_since):
        wallets = len({event.wallet_id for event in tried})
        _note_failure(subscriber, failures[tried[0].id].error, wallets, is_news)


def _note_success(subscriber: Subscriber) -> None:
    if subscriber.retry_at:
        parking.hurry(subscriber)
    subscriber.failures, subscriber.failing_since, subscriber.retry_at = 0, None, None
    subscriber.delivered_at = now()
    subscriber.save(update_fields=["failures", "failing_since", "retry_at", "delivered_at"])


def _note_failure(subscriber: Subscriber, error: str, wallets: int, is_news: bool) -> None:
    """A retry that fails again (not `is_news`) may be the event's fault, and pauses nothing."""
    subscriber.failing_since = subscriber.failing_since or now()
    subscriber.last_error = error
    subscriber.failures += is_news
    if is_news and max(wallets, subscriber.failures) >= MIN_FAILED_WALLETS:
        times = subscriber.failures + 1 - MIN_FAILED_WALLETS
        longest = min(MAX_SUBSCRIBER_PAUSE_SECONDS, longest_pause(subscriber))
        subscriber.retry_at = now() + timedelta(seconds=pause(times, longest))
    if subscriber.kind == Subscriber.Kind.WEBHOOK and _is_given_up(subscriber.failing_since):
        subscriber.is_enabled = False
        subscriber.disabled_because = f"Took nothing for {settings.EVENTS_RETRY_DAYS} days."
    fields = ["failures", "failing_since", "retry_at", "last_error", "is_enabled", "disabled_because"]
    subscriber.save(update_fields=fields)


def _is_given_up(since: datetime) -> bool:
    return now() - since > timedelta(days=settings.EVENTS_RETRY_DAYS)


def disable(subscriber: Subscriber, because: str) -> None:
    """It is told nothing until an operator enables it; then it goes on where it was."""
    Subscriber.objects.filter(id=subscriber.id).update(is_enabled=False, disabled_because=because)


def enable(subscriber: Subscriber) -> None:
    """Try again, now and with all of its patience."""
    with transaction.atomic():
        Subscriber.objects.filter(id=subscriber.id).update(is_enabled=True, disabled_because="")
        begin_anew(subscriber)


def begin_anew(subscriber: Subscriber) -> None:
    """Forget how it fared: what waits is tried now."""
    Subscriber.objects.filter(id=subscriber.id).update(failures=0, failing_since=None, retry_at=None)
    parking.begin_anew(subscriber)
