"""Deliver events to the subscribers, each at its own pace, in a delivery thread of its own.

Any number of relays may run. The relay that holds a subscriber's advisory lock serves it. When that relay's
connection ends, for whatever reason, PostgreSQL releases the lock, and another relay continues from the
recorded position. So an event is delivered at least once, and the events of a wallet in order.
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

MAX_ENTRIES_IN_FLIGHT: Final = 1000  # log entries in one batch of a subscriber
PROBE_SIZE: Final = 10  # entries, and parked wallets, in the first batch after a subscriber's pause
POLL_SECONDS: Final = 0.05  # between two checks for new entries
ROUND_SECONDS: Final = 1.0  # between two checks for subscribers and due retries
# A query of a delivery thread may take so many times OPERATION_DEADLINE: a window may be long.
DATABASE_TIMEOUT_FACTOR: Final = 3
CLEANUP_INTERVAL_SECONDS: Final = 60.0  # between two deletions of old deliveries
LOCK_CONNECTION: Final = "ledger"  # the connection that holds all locks (settings.DATABASES)


class Destination(Protocol):
    """Where a subscriber's events go."""

    def deliver(
        self, subscriber: Subscriber, events: Sequence[Event], suspects: Collection[UUID] = ()
    ) -> tuple[dict[str, Failure], list[Delivery]]:
        """Deliver the events; return the failures by event id, and the deliveries to record.

        The events of a wallet are delivered in order; after one fails, no later one is delivered. Events of
        the wallets in `suspects` share no message with events of other wallets.
        """

    def close(self) -> None: ...


class EntryNotifier:
    """Wakes the delivery threads when the log has new entries: one poll for all of them."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._count = 0
        self._seen = 0

    @property
    def count(self) -> int:
        return self._count

    def poll(self, using: str) -> None:
        horizon = log.horizon(using)
        if horizon > self._seen and log.has_entries(self._seen, horizon, using):
            self.notify()
        self._seen = max(horizon, self._seen)

    def notify(self) -> None:
        with self._arrived:
            self._count += 1
            self._arrived.notify_all()

    def wait(self, known: int, timeout_seconds: float) -> None:
        """Wait until `count` differs from `known`, or until the timeout."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._count != known, timeout_seconds)


class DeliveryThread(threading.Thread):
    """Delivers to one subscriber, round after round."""

    def __init__(self, subscriber: Subscriber, destination: Destination, notifier: EntryNotifier) -> None:
        super().__init__(name=f"delivery to {subscriber.name}", daemon=True)
        self.subscriber_id = subscriber.id
        self._destination = destination
        self._notifier = notifier
        self._stopped = threading.Event()
        self._exceptions = 0  # in a row

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                known = self._notifier.count
                self._notifier.wait(known, self._try_round())
        except Overtaken:
            logger.warning("%s: another relay serves this subscriber; this thread ends", self.name)
        finally:
            self._destination.close()
            database_retry.reconnect(DEFAULT_DB_ALIAS)

    def _try_round(self) -> float:
        try:
            wait_seconds = self._round()
            self._exceptions = 0
            return wait_seconds
        except Overtaken:
            raise
        except Exception as error:
            if isinstance(error, db.Error) and database_retry.is_connection_lost(error):
                logger.warning(
                    "database unavailable; %s waits for reconnect: %s", self.name, str(error).strip()
                )
            else:
                logger.exception("%s failed and will be retried", self.name)
            self._exceptions += 1
            self._stopped.wait(retries.pause(self._exceptions, retries.MAX_BROKER_PAUSE_SECONDS))
            return 0
        finally:
            database_retry.reconnect(DEFAULT_DB_ALIAS)  # return the connection to the pool while waiting

    def _round(self) -> float:
        """Deliver one batch; return for how many seconds to wait unless new entries arrive."""
        with _time_limited():
            batch, wait_seconds = self._next()
        if batch:
            self._deliver(batch)
        return wait_seconds

    def _next(self) -> tuple[DeliveryBatch | None, float]:
        subscriber = Subscriber.objects.filter(id=self.subscriber_id, is_enabled=True).first()
        if subscriber is None:
            self.stop()
            return None, 0
        left = (subscriber.retry_at - now()).total_seconds() if subscriber.retry_at else 0
        return (None, min(ROUND_SECONDS, left)) if left > 0 else _next_batch(subscriber)

    def _deliver(self, batch: DeliveryBatch) -> None:
        database_retry.reconnect(DEFAULT_DB_ALIAS)
        failures, deliveries = self._send(batch) if batch.events else ({}, [])
        with _time_limited():
            delivery_state.settle(batch, failures, deliveries)

    def _send(self, batch: DeliveryBatch) -> tuple[dict[str, Failure], list[Delivery]]:
        return self._destination.deliver(batch.subscriber, batch.events, batch.suspects)


def _next_batch(subscriber: Subscriber) -> tuple[DeliveryBatch | None, float]:
    """Load the next entries and the due retries, a few of each after a pause of the subscriber.

    Also return the seconds to wait unless new entries arrive.
    """
    max_entries, wallets = (
        (PROBE_SIZE, PROBE_SIZE)
        if subscriber.retry_at
        else (MAX_ENTRIES_IN_FLIGHT, parking.MAX_WALLETS_PER_ROUND)
    )
    position_before = delivery_state.position_of(subscriber)
    entries, position = log.read(position_before, max_entries)
    events = events_of(entries, subscriber.types)
    waiting = _waiting(subscriber, events)
    parked = parking.due(subscriber, position, wallets)
    # The last page of a window may be empty; the position still moves past it.
    is_amid_window = position_before.end is not None
    wait_seconds = 0 if entries or parked or is_amid_window else ROUND_SECONDS
    # Other transactions use up ids too: record a position that is far ahead, even without entries.
    if wait_seconds and position.begin <= position_before.begin + MAX_ENTRIES_IN_FLIGHT:
        return None, wait_seconds
    fresh = [event for event in events if event.wallet_id not in waiting]
    behind = [event for event in events if waiting.get(event.wallet_id) is False]
    return DeliveryBatch(subscriber, position, fresh, behind, parked), wait_seconds


def _waiting(subscriber: Subscriber, events: Sequence[Event]) -> dict[UUID, bool]:
    """Return the parked wallets of these events. True: a row with a place covers these events."""
    waiting = parking.waiting_wallets(subscriber, {event.wallet_id for event in events})
    if any(waiting.values()):
        parking.set_back(subscriber, [event for event in events if waiting.get(event.wallet_id)])
    return waiting


class Relay:
    """Takes the subscribers that no other relay serves, and starts and stops their delivery threads."""

    def __init__(self, destination_for: Callable[[Subscriber], Callable[[], Destination] | None]) -> None:
        self._destination_for = destination_for
        self._threads: dict[UUID, DeliveryThread] = {}
        self._notifier = EntryNotifier()
        self._is_stopping = False
        self._next_round = self._next_cleanup = 0.0

    def run(self) -> None:
        while not self._is_stopping:
            try:
                self._step()
            except db.Error as error:
                if not database_retry.is_connection_lost(error):
                    raise
                logger.warning("database unavailable; the relay waits for reconnect: %s", str(error).strip())
                self._stop_threads()  # the locks are lost; _take_over restarts each thread after its end
                database_retry.reconnect(LOCK_CONNECTION)
                time.sleep(database_retry.RECONNECT_PAUSE_SECONDS)
        self._stop_threads()
        for thread in self._threads.values():
            thread.join()
        database_retry.reconnect(LOCK_CONNECTION)

    def stop(self) -> None:
        self._is_stopping = True

    def _step(self) -> None:
        with database_retry.disconnected_when_slow(LOCK_CONNECTION):
            self._do_due_work()
        time.sleep(POLL_SECONDS)

    def _do_due_work(self) -> None:
        if time.monotonic() >= self._next_round:
            self._next_round = time.monotonic() + ROUND_SECONDS
            self._take_over()
            _try("could not record expired holds", lambda: expiry.record_all_expiries(LOCK_CONNECTION))
        if time.monotonic() >= self._next_cleanup:
            self._next_cleanup = time.monotonic() + CLEANUP_INTERVAL_SECONDS
            _try(
                "could not delete old deliveries",
                lambda: delivery_state.forget_old_deliveries(LOCK_CONNECTION),
            )
        self._notifier.poll(LOCK_CONNECTION)

    def _take_over(self) -> None:
        """Serve unserved subscribers; unlock those whose thread has ended.

        Raises db.Error if the connection, and with it all locks, is lost.
        """
        for id, thread in list(self._threads.items()):
            if not thread.is_alive():
                del self._threads[id]
                _unlock(id)
        for subscriber in Subscriber.objects.using(LOCK_CONNECTION).filter(is_enabled=True):
            if subscriber.id in self._threads or not (make := self._destination_for(subscriber)):
                continue
            if _lock(subscriber.id):
                thread = DeliveryThread(subscriber, make(), self._notifier)
                self._threads[subscriber.id] = thread
                thread.start()

    def _stop_threads(self) -> None:
        """Tell each delivery thread to end after its current batch."""
        for thread in self._threads.values():
            thread.stop()
        self._notifier.notify()


def _time_limited() -> AbstractContextManager[None]:
    return database_retry.disconnected_when_slow(
        DEFAULT_DB_ALIAS, DATABASE_TIMEOUT_FACTOR * settings.OPERATION_DEADLINE
    )


def _try(failure_text: str, work: Callable[[], object]) -> None:
    """Do secondary work: only a lost connection may interrupt the relay."""
    try:
        work()
    except db.Error as error:
        if database_retry.is_connection_lost(error):
            raise
        logger.warning("%s: %s", failure_text, str(error).strip())


def _lock(id: UUID) -> bool:
    with connections[LOCK_CONNECTION].cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [lock_key(LockClass.SUBSCRIBER, id)])
        is_ours: bool = cursor.fetchone()[0]
        return is_ours


def _unlock(id: UUID) -> None:
    with connections[LOCK_CONNECTION].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock(%s)", [lock_key(LockClass.SUBSCRIBER, id)])
