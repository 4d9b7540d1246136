"""Who is where in the log, what waits for them, and how they fare."""

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from django.conf import settings
from django.db import connection, connections, transaction
from django.db.models import Count, QuerySet
from django.utils.timezone import now
from uuid_utils.compat import uuid7

from wallets.advisory_locks import LockClass, lock_key
from wallets.events import log
from wallets.events.cloudevents import Event
from wallets.events.log import Position
from wallets.models import Delivery, ParkedEvent, Subscriber

# Seconds until the next attempt, after so many failures; from then on the last, until RETRY_DAYS are over.
PAUSES: Final = (1, 5, 30, 120, 600, 1800, 3600, 7200, 14_400, 21_600)
LONGEST_FOR_BROKER: Final = 30
JITTER: Final = 0.2  # of a pause, more or less: those that failed together do not come back together
KEPT: Final = 1000  # deliveries of each webhook
BROKERS: Final = ("kafka", "rabbitmq")  # names of theirs: no webhook's

# Compared with where it was: who lost the right to deliver in the meantime must not set it back.
_MOVE: Final = """
    UPDATE subscriber SET begin_xid = %(begin)s::xid8, end_xid = %(end)s::xid8,
        after_at = %(after_at)s, after_id = %(after_id)s
    WHERE id = %(id)s AND begin_xid = %(old_begin)s::xid8 AND end_xid IS NOT DISTINCT FROM %(old_end)s::xid8
        AND after_at IS NOT DISTINCT FROM %(old_after_at)s AND after_id IS NOT DISTINCT FROM %(old_after_id)s
"""
_PARK: Final = """
    INSERT INTO parked_event
        (subscriber_id, event_id, type, wallet_id, event, attempts, next_attempt_at, last_error, created_at)
    SELECT %(id)s, event_id, type, wallet_id, event, attempts, %(now)s + pause * interval '1 second', error,
        %(now)s
    FROM json_to_recordset(%(new)s::json) AS new (
        event_id text, type text, wallet_id uuid, event text, attempts integer, pause float, error text
    )
    ON CONFLICT (subscriber_id, event_id) DO NOTHING
"""
# The first of each wallet whose time has come, and what waits behind it. At once: first who was tried least.
_DUE: Final = """
    SELECT parked_event.id, event_id, type, wallet_id, event, parked_event.attempts
    FROM parked_event JOIN (
        SELECT DISTINCT ON (wallet_id) wallet_id, next_attempt_at, attempts FROM parked_event
        WHERE subscriber_id = %(id)s AND status = 'WAITING' ORDER BY wallet_id, id
    ) AS first USING (wallet_id)
    WHERE subscriber_id = %(id)s AND status = 'WAITING' AND (%(at_once)s OR first.next_attempt_at <= %(now)s)
    ORDER BY CASE WHEN %(at_once)s THEN first.attempts END, parked_event.id LIMIT %(most)s
"""
_TRY_LATER: Final = """
    UPDATE parked_event SET attempts = attempts + 1, last_error = error,
        next_attempt_at = %(now)s + pause * interval '1 second',
        status = CASE WHEN %(now)s + pause * interval '1 second' - created_at > %(patience)s
            THEN 'DEAD' ELSE status END
    FROM json_to_recordset(%(tried)s::json) AS tried (parked_id bigint, pause float, error text)
    WHERE id = parked_id
"""
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
        (SELECT count(*) FROM parked_event WHERE subscriber_id = subscriber.id AND status = 'WAITING'),
        (SELECT count(*) FROM parked_event WHERE subscriber_id = subscriber.id AND status = 'DEAD')
    FROM subscriber WHERE %(names)s::text[] IS NULL OR name = ANY(%(names)s::text[]) ORDER BY name
"""  # noqa: S608 - of constants


class Overtaken(Exception):
    """Somebody else has delivered meanwhile, or removed the subscriber: what we know of it is old."""


@dataclass(frozen=True, slots=True)
class Item:
    """An event to deliver: from the log, or one that was parked."""

    event: Event
    attempts: int = 0
    parked_id: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an event was not delivered. It was not tried where it waits behind another, or for better times."""

    error: str
    was_tried: bool


BEHIND: Final = Failure("an earlier event of the wallet waits", was_tried=False)


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


# --- What waits -------------------------------------------------------------------------------------
def due(subscriber: Subscriber, most: int, at_once: bool = False) -> list[Item]:
    """Of what is parked, what may be tried now, in order; with `at_once`, whatever its time is."""
    with connection.cursor() as cursor:
        cursor.execute(_DUE, {"id": subscriber.id, "now": now(), "at_once": at_once, "most": most})
        return [
            Item(Event(event_id, type, wallet_id, content.encode()), attempts, parked_id)
            for parked_id, event_id, type, wallet_id, content, attempts in cursor.fetchall()
        ]


def parked(subscriber: Subscriber) -> Counter[UUID]:
    """How much waits, by wallet."""
    return Counter(dict(_waiting(subscriber).values_list("wallet_id").annotate(Count("id"))))


def _waiting(subscriber: Subscriber) -> QuerySet[ParkedEvent]:
    return ParkedEvent.objects.filter(subscriber=subscriber, status=ParkedEvent.Status.WAITING)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a subscriber fares."""

    name: str
    is_enabled: bool
    lag: float
    parked: int
    dead: int


def standings(names: Collection[str] | None = None) -> list[Standing]:
    """Of those with these names, or of all."""
    with connection.cursor() as cursor:
        cursor.execute(_STANDINGS, {"names": None if names is None else list(names)})
        return [Standing(*row) for row in cursor.fetchall()]


# --- After an attempt -------------------------------------------------------------------------------
def settle(
    subscriber: Subscriber,
    items: Sequence[Item],
    failures: dict[str, Failure],
    position: Position | None,
    deliveries: Sequence[Delivery] = (),
) -> None:
    """Write down what became of the items, and with `position` that the log is read up to there.

    In one transaction: what is not delivered is parked before the log is left behind. Raises Overtaken.
    """
    with transaction.atomic():
        now_it_is = Subscriber.objects.select_for_update(no_key=True).filter(id=subscriber.id).first()
        if now_it_is is None:
            raise Overtaken  # an operator has removed it
        if position is not None:
            _move(subscriber, position)
        _forget([item for item in items if item.event.id not in failures])
        _park(subscriber, [(item, failures[item.event.id]) for item in items if item.event.id in failures])
        Delivery.objects.bulk_create(deliveries)
        # What an operator has changed meanwhile begins anew: this says nothing of it.
        if (now_it_is.url, now_it_is.failing_since) == (subscriber.url, subscriber.failing_since):
            _note_health(now_it_is, len(items), failures, is_new=position is not None)
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
            cursor.execute(_FORGET_DELIVERIES, [KEPT])


def _move(subscriber: Subscriber, to: Position) -> None:
    old = position_of(subscriber)
    parameters = {"id": subscriber.id, **_columns(to), **{f"old_{k}": v for k, v in _columns(old).items()}}
    with connection.cursor() as cursor:
        cursor.execute(_MOVE, parameters)
        if not cursor.rowcount:
            raise Overtaken


def _columns(position: Position) -> dict[str, Any]:
    at, id = position.after or (None, None)
    end = None if position.end is None else str(position.end)
    return {"begin": str(position.begin), "end": end, "after_at": at, "after_id": id}


def _forget(delivered: Sequence[Item]) -> None:
    if parked := [item.parked_id for item in delivered if item.parked_id is not None]:
        ParkedEvent.objects.filter(id__in=parked).delete()


def _park(subscriber: Subscriber, failed: Sequence[tuple[Item, Failure]]) -> None:
    new = [(item, failure) for item, failure in failed if item.parked_id is None]
    if new:
        rows = orjson.dumps([_row(*each) for each in new]).decode()
        with connection.cursor() as cursor:
            cursor.execute(_PARK, {"id": subscriber.id, "now": now(), "new": rows})
    _try_later(subscriber, [each for each in failed if each[0].parked_id is not None and each[1].was_tried])


def _row(item: Item, failure: Failure) -> dict[str, Any]:
    return {
        "event_id": item.event.id,
        "type": item.event.type,
        "wallet_id": item.event.wallet_id,
        "event": item.event.content.decode(),
        "attempts": int(failure.was_tried),
        "pause": pause(1) if failure.was_tried else 0,
        "error": failure.error,
    }


def _try_later(subscriber: Subscriber, tried: Sequence[tuple[Item, Failure]]) -> None:
    """A webhook's that has waited for too long is a dead letter."""
    if not tried:
        return
    longest = _longest(subscriber)
    rows = [
        {"parked_id": item.parked_id, "pause": pause(item.attempts + 1, longest), "error": failure.error}
        for item, failure in tried
    ]
    is_patient = subscriber.kind == Subscriber.Kind.BROKER
    parameters: dict[str, Any] = {
        "now": now(),
        "patience": timedelta.max if is_patient else timedelta(days=settings.EVENTS_RETRY_DAYS),
        "tried": orjson.dumps(rows).decode(),
    }
    with connection.cursor() as cursor:
        cursor.execute(_TRY_LATER, parameters)


def _note_health(subscriber: Subscriber, items: int, failures: dict[str, Failure], is_new: bool) -> None:
    """One that takes something is well; one that takes nothing is left alone, for longer each time.

    What fails again, of one that is well, says nothing new of it.
    """
    tried = [failure for failure in failures.values() if failure.was_tried]
    if items > len(failures):
        if subscriber.failures:
            _waiting(subscriber).update(next_attempt_at=now())  # it was not their fault
        subscriber.failures, subscriber.failing_since, subscriber.retry_at = 0, None, None
        subscriber.delivered_at = now()
        fields = ["failures", "failing_since", "retry_at", "delivered_at"]
    elif tried and (is_new or subscriber.failures):
        subscriber.failures += 1
        subscriber.failing_since = subscriber.failing_since or now()
        subscriber.last_error = tried[0].error
        subscriber.retry_at = now() + timedelta(seconds=pause(subscriber.failures, _longest(subscriber)))
        fields = ["failures", "failing_since", "retry_at", "last_error"]
        if subscriber.kind == Subscriber.Kind.WEBHOOK and _is_given_up(subscriber.failing_since):
            subscriber.is_enabled = False
            subscriber.disabled_because = f"Took nothing for {settings.EVENTS_RETRY_DAYS} days."
            fields += ["is_enabled", "disabled_because"]
    else:
        return
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
    _waiting(subscriber).update(created_at=now(), next_attempt_at=now())


def replay_dead(subscriber: Subscriber) -> int:
    """Try its dead letters again, each in the order of its wallet; return how many there are."""
    dead = ParkedEvent.objects.filter(subscriber=subscriber, status=ParkedEvent.Status.DEAD)
    return dead.update(status=ParkedEvent.Status.WAITING, attempts=0, created_at=now(), next_attempt_at=now())


def _longest(subscriber: Subscriber) -> float:
    return LONGEST_FOR_BROKER if subscriber.kind == Subscriber.Kind.BROKER else PAUSES[-1]


def pause(failures: int, longest: float = PAUSES[-1]) -> float:
    """Seconds until the next attempt."""
    exact = min(PAUSES[min(failures, len(PAUSES)) - 1], longest)
    return exact * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
