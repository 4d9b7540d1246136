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
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from django import db
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils.timezone import now

from wallets.advisory_locks import LockClass, lock_key
from wallets.events import log, subscribers
from wallets.events.cloudevents import Event, events_of
from wallets.events.subscribers import BEHIND, Failure, Item, Overtaken
from wallets.ledger import expiry, recovery
from wallets.models import Delivery, Subscriber

logger = logging.getLogger(__name__)

PAGE: Final = 1000  # entries of the log that a subscriber has under way
MOST_PARKED: Final = 10_000  # events that wait for one subscriber; beyond, the log waits
POLL: Final = 0.05  # seconds between two looks for something new
ROUND: Final = 1.0  # seconds between two looks for subscribers, and for what is parked
PROBE: Final = 60.0  # seconds for which one that takes nothing is left alone, whatever happens
PATIENCE: Final = 3  # times OPERATION_DEADLINE, for the database's word to a courier: a window may be long
TIDYING: Final = 60.0  # seconds between two looks for deliveries that nobody will look at
KEEPER: Final = "ledger"  # the connection whose end gives up all locks (settings.DATABASES)


class Destination(Protocol):
    """Where a subscriber's events go."""

    def deliver(
        self, subscriber: Subscriber, events: Sequence[Event]
    ) -> tuple[dict[str, Failure], list[Delivery]]:
        """Deliver the events, those of a wallet in their order; return by id what was not delivered, and why.

        Behind a failure nothing of the same wallet is delivered. Also what there is to record of it.
        """

    def close(self) -> None: ...


class Load(NamedTuple):
    """What a courier takes along: nothing of wallets for which something waits; and the place behind it."""

    subscriber: Subscriber
    items: Sequence[Item]
    waiting: Collection[UUID] = ()
    position: log.Position | None = None


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
        self._tried_at = 0.0
        self._probes = 0
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
            recovery.reconnect(DEFAULT_DB_ALIAS)

    def _try_round(self) -> float:
        try:
            rest = self._round()
            self._faults = 0
            return rest
        except Overtaken:
            raise
        except Exception as error:
            if isinstance(error, db.Error) and recovery.is_away(error):
                logger.warning("the database is away, the %s waits for it: %s", self.name, str(error).strip())
            else:
                logger.exception("the %s has failed, and tries again", self.name)
            self._faults += 1
            self._stopped.wait(subscribers.pause(self._faults, subscribers.LONGEST_FOR_BROKER))
            return 0
        finally:
            recovery.reconnect(DEFAULT_DB_ALIAS)  # back to the pool, while we wait or deliver

    def _round(self) -> float:
        """Deliver what can be delivered now; return for how many seconds there may be nothing to do."""
        with _watched():
            load, rest = self._next()
        if load:
            self._deliver(load)
        return rest

    def _next(self) -> tuple[Load | None, float]:
        subscriber = Subscriber.objects.filter(id=self.subscriber_id, is_enabled=True).first()
        if subscriber is None:
            self.stop()
            return None, 0
        left = (subscriber.retry_at - now()).total_seconds() if subscriber.retry_at else 0
        is_probe = left > 0 and self._may_probe(subscriber)
        if left > 0 and not is_probe:
            return None, min(ROUND, left)
        self._tried_at = time.monotonic()
        waiting = subscribers.parked(subscriber)
        has_room = waiting.total() < MOST_PARKED
        self._probes += is_probe
        if is_probe and has_room and self._probes % 2:  # in turn: it may be what waits, or the receiver
            return self._read_on(subscriber, waiting)
        if waiting and (due := subscribers.due(subscriber, PAGE, at_once=is_probe)):
            return Load(subscriber, due), 0
        return self._read_on(subscriber, waiting) if has_room else (None, ROUND)

    def _may_probe(self, subscriber: Subscriber) -> bool:
        """Whether it has been left alone for long enough, now that there is something new for it."""
        if time.monotonic() < self._tried_at + PROBE:
            return False
        return log.has_entries(subscribers.position_of(subscriber).begin, log.horizon())

    def _read_on(self, subscriber: Subscriber, waiting: Collection[UUID]) -> tuple[Load | None, float]:
        was = subscribers.position_of(subscriber)
        entries, position = log.read(was, PAGE)
        is_amid_window = was.end is not None  # its last page may be empty, and is behind us all the same
        rest = 0 if entries or is_amid_window else ROUND
        if rest and position.begin <= was.begin + PAGE:
            return None, rest
        # Others use up ids as well: a position moves though there was nothing to tell.
        items = [Item(event) for event in events_of(entries, subscriber.types)]
        return Load(subscriber, items, waiting, position), rest

    def _deliver(self, load: Load) -> None:
        ready = [item.event for item in load.items if item.event.wallet_id not in load.waiting]
        behind = {item.event.id: BEHIND for item in load.items if item.event.wallet_id in load.waiting}
        recovery.reconnect(DEFAULT_DB_ALIAS)
        failures, deliveries = self._destination.deliver(load.subscriber, ready) if ready else ({}, [])
        with _watched():
            subscribers.settle(load.subscriber, load.items, behind | failures, load.position, deliveries)


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
                if not recovery.is_away(error):
                    raise
                logger.warning("the database is away, the relay waits for it: %s", str(error).strip())
                self._stop_couriers()  # the locks are gone; they are served again when they have ended
                recovery.reconnect(KEEPER)
                time.sleep(recovery.PAUSE)
        self._stop_couriers()
        for courier in self._couriers.values():
            courier.join()
        recovery.reconnect(KEEPER)

    def stop(self) -> None:
        self._is_over = True

    def _step(self) -> None:
        with recovery.watched(KEEPER):
            self._look_after_all()
        time.sleep(POLL)

    def _look_after_all(self) -> None:
        if time.monotonic() >= self._next_round:
            self._next_round = time.monotonic() + ROUND
            self._take_over()
            _try("expired holds are not written down", lambda: expiry.write_down_all(KEEPER))
        if time.monotonic() >= self._next_tidying:
            self._next_tidying = time.monotonic() + TIDYING
            _try("old deliveries stay", lambda: subscribers.forget_old_deliveries(KEEPER))
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
    return recovery.watched(DEFAULT_DB_ALIAS, PATIENCE * settings.OPERATION_DEADLINE)


def _try(otherwise: str, work: Callable[[], object]) -> None:
    """What is not the relay's first duty must not end it."""
    try:
        work()
    except db.Error as error:
        if recovery.is_away(error):
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
