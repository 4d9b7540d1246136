"""Stream the events of a wallet to clients of the API as they happen.

One thread (under gevent: greenlet) of a process reads the log for all streams, and ends with the last one.
"""

import logging
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar
from uuid import UUID

from django import db
from django.db import DEFAULT_DB_ALIAS

from wallets import database_retry
from wallets.apps import give_back_connection
from wallets.batching import once
from wallets.events import log
from wallets.events.cloudevents import Event, events_of
from wallets.events.log import LogItem, Position
from wallets.problems import TooManyRequests

T = TypeVar("T")

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.2  # between two reads of the log
ERROR_PAUSE_SECONDS: Final = 5.0  # after an unexpected exception, which may repeat
MAX_ENTRIES_PER_READ: Final = 300  # an entry has up to three events: fewer in all than MAX_QUEUED_ITEMS
MAX_STREAMS: Final = 500  # in one process; each has a client's connection
MAX_STREAMS_PER_CALLER: Final = 50  # of one API key or user
MAX_QUEUED_ITEMS: Final = 1000  # of one stream; a slower client must read the wallet instead
# Older positions are not resumed: the client must read the wallet instead.
MAX_TRANSACTIONS_BEHIND: Final = 100_000


@dataclass(frozen=True, slots=True)
class StreamItem:
    """An event, and the position to resume at. Events that are sent again after it have the same ids."""

    event: Event | None  # None: events were dropped, as the client was too slow
    position: int


class Watch:
    """One client's stream of a wallet's events, until `close`."""

    def __init__(self, wallet_id: UUID, actor: str, leave: Callable[["Watch"], None]) -> None:
        self.wallet_id = wallet_id
        self.actor = actor
        self._items: deque[StreamItem] = deque()
        self._arrived = threading.Condition()
        self._leave = leave

    def put(self, item: StreamItem) -> None:
        with self._arrived:
            if len(self._items) >= MAX_QUEUED_ITEMS:
                self._items.clear()
                item = StreamItem(None, item.position)
            self._items.append(item)
            self._arrived.notify()

    def put_first(self, items: Sequence[StreamItem]) -> None:
        """Put earlier items before those that are queued now."""
        with self._arrived:
            self._items.extendleft(reversed(items))

    def next(self, timeout_seconds: float) -> StreamItem | None:
        """Take the next item; None if there is none within the timeout."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._items, timeout_seconds)
            return self._items.popleft() if self._items else None

    def close(self) -> None:
        self._leave(self)


class Tail:
    """Reads the log for all streams of the process, from the start of the first to the end of the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: dict[UUID, set[Watch]] = defaultdict(set)
        self._open_streams: Counter[str] = Counter()  # open streams by actor
        self._is_running = False
        self._position = Position(0)

    def watch(self, wallet_id: UUID, since: int | None, actor: str) -> Watch:
        """Open a stream of the wallet's events from now on, or after position `since`.

        Raises TooManyRequests if too many streams are open, or a db.Error if the database stays unavailable.
        """
        horizon = _query(log.horizon)
        watch = Watch(wallet_id, actor, self._leave)
        with self._lock:
            # The tail may be one read behind; events that it sends twice have the same id.
            until = max(horizon, self._join(watch, horizon))
        try:
            watch.put_first(_query(lambda: _missed(wallet_id, since, horizon, until)))
        except Exception:
            watch.close()
            raise
        return watch

    def _join(self, watch: Watch, horizon: int) -> int:
        """Add the stream; return the end of the entries that the tail may have read already."""
        if self._open_streams.total() >= MAX_STREAMS or (
            watch.actor and self._open_streams[watch.actor] >= MAX_STREAMS_PER_CALLER
        ):
            raise TooManyRequests("Too many event streams are open. Close one, or poll the wallet instead.")
        if not self._is_running:
            threading.Thread(target=self._run, name="tail", daemon=True).start()
            self._is_running, self._position = True, Position(horizon)
        self._open_streams[watch.actor] += 1
        self._watches[watch.wallet_id].add(watch)
        return self._position.end or self._position.begin

    def _leave(self, watch: Watch) -> None:
        with self._lock:
            watches = self._watches.get(watch.wallet_id, set())
            if watch in watches:
                self._open_streams -= Counter([watch.actor])
                watches.remove(watch)
                if not watches:
                    del self._watches[watch.wallet_id]

    def _run(self) -> None:
        while True:
            try:
                while self._read_if_needed():
                    time.sleep(0 if self._position.after else POLL_SECONDS)  # within a window, more is ready
                return
            except db.Error as error:
                logger.warning("database unavailable; live event streams retry: %s", str(error).strip())
                time.sleep(POLL_SECONDS)
            except Exception:
                logger.exception("live event streams failed to read the log; retrying")
                time.sleep(ERROR_PAUSE_SECONDS)

    def _read_if_needed(self) -> bool:
        """Queue new events for the streams. False if no stream is open: the thread ends."""
        try:
            # New streams join under this lock: the position must not move between their join and this read.
            with self._lock, database_retry.disconnected_when_slow(DEFAULT_DB_ALIAS):
                self._is_running = bool(self._watches)
                if self._is_running:
                    self._step()
                return self._is_running
        finally:
            database_retry.reconnect(DEFAULT_DB_ALIAS)

    def _step(self) -> None:
        window = self._position
        entries, position = log.read(window, MAX_ENTRIES_PER_READ, list(self._watches))
        for item, wallet_id in _items_of(entries, window, position):
            for watch in self._watches[wallet_id]:
                watch.put(item)
        self._position = position  # last: if anything above fails, the same window is read again


def _query(work: Callable[[], T]) -> T:
    """Query, then release the connection: the tail may need it while this thread waits for its lock."""
    try:
        return database_retry.retry_until_deadline(work)
    finally:
        give_back_connection()


def _missed(wallet_id: UUID, since: int | None, horizon: int, until: int) -> list[StreamItem]:
    """Return the wallet's items that the tail has read: after `since`, or else the horizon, up to `until`."""
    begin = horizon if since is None else since
    dropped = [StreamItem(None, until)]
    if not horizon - MAX_TRANSACTIONS_BEHIND <= begin <= horizon:
        return dropped
    found: list[StreamItem] = []
    position = Position(begin, until)
    while position.begin < until and len(found) <= MAX_QUEUED_ITEMS:
        window = position
        entries, position = log.read(window, MAX_ENTRIES_PER_READ, [wallet_id])
        found += [item for item, _ in _items_of(entries, window, position)]
    return found if len(found) <= MAX_QUEUED_ITEMS else dropped


def _items_of(
    entries: Sequence[LogItem], window: Position, after: Position
) -> Iterator[tuple[StreamItem, UUID]]:
    """Pair each item with its wallet. Only a wallet's last event resumes after the window.

    A client that is cut off within a window gets the whole window again.
    """
    events = events_of(entries)
    last = {event.wallet_id: event for event in events}  # by wallet: a stream has one wallet
    for event in events:
        position = after.begin if event is last[event.wallet_id] else window.begin
        yield StreamItem(event, position), event.wallet_id


@once
def tail() -> Tail:
    """Return the tail of this process."""
    return Tail()
