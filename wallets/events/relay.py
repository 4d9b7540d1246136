"""Tells the subscribers what happens, each at its own pace: a courier for each, in a thread.

Any number of relays may run. A subscriber is served by the one that holds its lock, which ends with that
relay's connection, however it ends; then another takes over where the first had got to. So an event is
delivered at least once, and those of one wallet in their order.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol
from uuid import UUID

from django import db
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils.timezone import now

from wallets import database_retry
from wallets.advisory_locks import LockClass, lock_key
from wallets.events import delivery_state, log, parking, retries
from wallets.events.cloudevents import Event, events_of
from wallets.events.delivery_state import DeliveryBatch, Overtaken
from wallets.events.retries import Failure
from wallets.ledger import expiry
from wallets.models import Delivery, Subscriber

logger = logging.getLogger(__name__)

MAX_ENTRIES_IN_FLIGHT: Final = 1000  # entries of the log that a subscriber has under way
PROBE_SIZE: Final = 10  # entries, and wallets that wait, in an attempt after a pause of the subscriber
POLL_SECONDS: Final = 0.05  # seconds between two looks for something new
ROUND_SECONDS: Final = 1.0  # seconds between two looks for subscribers, and for what is parked
DATABASE_TIMEOUT_FACTOR: Final = (
    3  # times OPERATION_DEADLINE, for the database's word to a courier: a window may be long
)
CLEANUP_INTERVAL_SECONDS: Final = 60.0  # seconds between two looks for deliveries that nobody will look at
KEEPER: Final = "ledger"  # the connection whose end gives up all locks (settings.DATABASES)


class Destination(Protocol):
    """Where a subscriber's events go."""

    def deliver(
        self, subscriber: Subscriber, events: Sequence[Event], suspects: Collection[UUID] = ()
    ) -> tuple[dict[str, Failure], list[Delivery]]:
        """Deliver the events, those of a wallet in their order; return by id what was not delivered, and why.

        Behind a failure nothing of the same wallet is delivered. Events of the `suspects`, which are wallets,
        share no message with those of other wallets. Also returns what there is to record of the attempt.
        """

    def close(self) -> None: ...


class News:
    """Wakes the couriers when there is something new in the log: one look for all of them."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._count = 0
        self._seen = 0

    @property
    def count(self) -> int:
        return self._count

    def look(self, using: str) -> None:
        horizon = log.horizon(using)
        if horizon > self._seen and log.has_entries(self._seen, horizon, using):
            self.tell()
        self._seen = max(horizon, self._seen)

    def tell(self) -> None:
        with self._arrived:
            self._count += 1
            self._arrived.notify_all()

    def wait(self, known: int, patience: float) -> None:
        """Until there is more than what was known, or patience is over."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._count != known, patience)


class Courier(threading.Thread):
    """Delivers to one subscriber, round after round."""

    def __init__(self, subscriber: Subscriber, destination: Destination, news: News) -> None:
        super().__init__(name=f"courier of {subscriber.name}", daemon=True)
        self.subscriber_id = subscriber.id
        self._destination = destination
        self._news = news
        self._stopped = threading.Event()
        self._faults = 0  # one after the other, up to now

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                known = self._news.count
                self._news.wait(known, self._try_round())
        except Overtaken:
            logger.warning("the %s is not the only one, and leaves it to the other", self.name)
        finally:
            self._destination.close()
            database_retry.reconnect(DEFAULT_DB_ALIAS)

    def _try_round(self) -> float:
        try:
            rest = self._round()
            self._faults = 0
            return rest
        except Overtaken:
            raise
        except Exception as error:
            if isinstance(error, db.Error) and database_retry.is_connection_lost(error):
                logger.warning("the database is away, the %s waits for it: %s", self.name, str(error).strip())
            else:
                logger.exception("the %s has failed, and tries again", self.name)
            self._faults += 1
            self._stopped.wait(retries.pause(self._faults, retries.MAX_BROKER_PAUSE_SECONDS))
            return 0
        finally:
            database_retry.reconnect(DEFAULT_DB_ALIAS)  # back to the pool, while we wait or deliver

    def _round(self) -> float:
        """Deliver what can be delivered now; return for how many seconds there may be nothing to do."""
        with _watched():
            load, rest = self._next()
        if load:
            self._deliver(load)
        return rest

    def _next(self) -> tuple[DeliveryBatch | None, float]:
        subscriber = Subscriber.objects.filter(id=self.subscriber_id, is_enabled=True).first()
        if subscriber is None:
            self.stop()
            return None, 0
        left = (subscriber.retry_at - now()).total_seconds() if subscriber.retry_at else 0
        return (None, min(ROUND_SECONDS, left)) if left > 0 else _load(subscriber)

    def _deliver(self, load: DeliveryBatch) -> None:
        database_retry.reconnect(DEFAULT_DB_ALIAS)
        failures, deliveries = self._send(load) if load.events else ({}, [])
        with _watched():
            delivery_state.settle(load, failures, deliveries)

    def _send(self, load: DeliveryBatch) -> tuple[dict[str, Failure], list[Delivery]]:
        return self._destination.deliver(load.subscriber, load.events, load.suspects)


def _load(subscriber: Subscriber) -> tuple[DeliveryBatch | None, float]:
    """The log's next entries and the wallets whose next attempt is due; a few of both after a pause.

    Also returns the seconds for which there may be nothing to do.
    """
    most, wallets = (
        (PROBE_SIZE, PROBE_SIZE)
        if subscriber.retry_at
        else (MAX_ENTRIES_IN_FLIGHT, parking.MAX_WALLETS_PER_ROUND)
    )
    was = delivery_state.position_of(subscriber)
    entries, position = log.read(was, most)
    events = events_of(entries, subscriber.types)
    waiting = _waiting(subscriber, events)
    parked = parking.due(subscriber, position, wallets)
    is_amid_window = was.end is not None  # its last page may be empty, and is behind us all the same
    rest = 0 if entries or parked or is_amid_window else ROUND_SECONDS
    # Others use up ids as well: a position moves though there was nothing to tell.
    if rest and position.begin <= was.begin + MAX_ENTRIES_IN_FLIGHT:
        return None, rest
    fresh = [event for event in events if event.wallet_id not in waiting]
    behind = [event for event in events if waiting.get(event.wallet_id) is False]
    return DeliveryBatch(subscriber, position, fresh, behind, parked), rest


def _waiting(subscriber: Subscriber, events: Sequence[Event]) -> dict[UUID, bool]:
    """The wallets of these events that wait. True: a row with a position has these events as well."""
    waiting = parking.waiting_wallets(subscriber, {event.wallet_id for event in events})
    if any(waiting.values()):
        parking.set_back(subscriber, [event for event in events if waiting.get(event.wallet_id)])
    return waiting


class Relay:
    """Takes the subscribers that nobody else serves, and looks after their couriers."""

    def __init__(self, destination_for: Callable[[Subscriber], Callable[[], Destination] | None]) -> None:
        self._destination_for = destination_for
        self._couriers: dict[UUID, Courier] = {}
        self._news = News()
        self._is_over = False
        self._next_round = self._next_tidying = 0.0

    def run(self) -> None:
        while not self._is_over:
            try:
                self._step()
            except db.Error as error:
                if not database_retry.is_connection_lost(error):
                    raise
                logger.warning("the database is away, the relay waits for it: %s", str(error).strip())
                self._stop_couriers()  # the locks are gone; they are served again when they have ended
                database_retry.reconnect(KEEPER)
                time.sleep(database_retry.RECONNECT_PAUSE_SECONDS)
        self._stop_couriers()
        for courier in self._couriers.values():
            courier.join()
        database_retry.reconnect(KEEPER)

    def stop(self) -> None:
        self._is_over = True

    def _step(self) -> None:
        with database_retry.disconnected_when_slow(KEEPER):
            self._look_after_all()
        time.sleep(POLL_SECONDS)

    def _look_after_all(self) -> None:
        if time.monotonic() >= self._next_round:
            self._next_round = time.monotonic() + ROUND_SECONDS
            self._take_over()
            _try("expired holds are not written down", lambda: expiry.record_all_expiries(KEEPER))
        if time.monotonic() >= self._next_tidying:
            self._next_tidying = time.monotonic() + CLEANUP_INTERVAL_SECONDS
            _try("old deliveries stay", lambda: delivery_state.forget_old_deliveries(KEEPER))
        self._news.look(KEEPER)

    def _take_over(self) -> None:
        """Serve those that nobody serves; give up those whose courier has ended. Raises where we lost all."""
        for id, courier in list(self._couriers.items()):
            if not courier.is_alive():
                del self._couriers[id]
                _unlock(id)
        for subscriber in Subscriber.objects.using(KEEPER).filter(is_enabled=True):
            if subscriber.id in self._couriers or not (make := self._destination_for(subscriber)):
                continue
            if _lock(subscriber.id):
                courier = Courier(subscriber, make(), self._news)
                self._couriers[subscriber.id] = courier
                courier.start()

    def _stop_couriers(self) -> None:
        """Each after what it has under way."""
        for courier in self._couriers.values():
            courier.stop()
        self._news.tell()


def _watched() -> AbstractContextManager[None]:
    return database_retry.disconnected_when_slow(
        DEFAULT_DB_ALIAS, DATABASE_TIMEOUT_FACTOR * settings.OPERATION_DEADLINE
    )


def _try(otherwise: str, work: Callable[[], object]) -> None:
    """What is not the relay's first duty must not end it."""
    try:
        work()
    except db.Error as error:
        if database_retry.is_connection_lost(error):
            raise
        logger.warning("%s: %s", otherwise, str(error).strip())


def _lock(id: UUID) -> bool:
    with connections[KEEPER].cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [lock_key(LockClass.SUBSCRIBER, id)])
        is_ours: bool = cursor.fetchone()[0]
        return is_ours


def _unlock(id: UUID) -> None:
    with connections[KEEPER].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock(%s)", [lock_key(LockClass.SUBSCRIBER, id)])
