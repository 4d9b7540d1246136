"""What happens to a wallet, as it happens, for those who wait at the API.

One thread (under gevent: greenlet) of a process reads the log for all of them, as long as anybody waits.
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

POLL_SECONDS: Final = 0.2  # seconds between two looks
ERROR_PAUSE_SECONDS: Final = 5.0  # seconds after a fault of ours, which may be there to stay
MAX_ENTRIES_PER_READ: Final = (
    300  # entries of the log in one look, of up to three events each: less than may wait
)
MAX_STREAMS: Final = 500  # who wait, in one process: each has a connection
MAX_STREAMS_PER_CALLER: Final = 50  # of them, for one key or person
MAX_QUEUED_ITEMS: Final = 1000  # moments, for one who waits: who is that far behind had better look anew
MAX_TRANSACTIONS_BEHIND: Final = 100_000  # transactions: the same


@dataclass(frozen=True, slots=True)
class StreamItem:
    """Something that happened, and where to go on after it: what is sent again then has been seen before."""

    event: Event | None  # None: more than can be told
    position: int


class Watch:
    """Somebody who waits for what happens to a wallet, until `close`."""

    def __init__(self, wallet_id: UUID, actor: str, leave: Callable[["Watch"], None]) -> None:
        self.wallet_id = wallet_id
        self.actor = actor
        self._moments: deque[StreamItem] = deque()
        self._arrived = threading.Condition()
        self._leave = leave

    def tell(self, moment: StreamItem) -> None:
        with self._arrived:
            if len(self._moments) >= MAX_QUEUED_ITEMS:
                self._moments.clear()
                moment = StreamItem(None, moment.position)
            self._moments.append(moment)
            self._arrived.notify()

    def tell_first(self, moments: Sequence[StreamItem]) -> None:
        """What happened earlier than all that has been told by now."""
        with self._arrived:
            self._moments.extendleft(reversed(moments))

    def next(self, patience: float) -> StreamItem | None:
        """What happens next, if it does within so many seconds."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._moments, patience)
            return self._moments.popleft() if self._moments else None

    def close(self) -> None:
        self._leave(self)


class Tail:
    """Reads the log from where the first one begins to wait until nobody does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: dict[UUID, set[Watch]] = defaultdict(set)
        self._waiting: Counter[str] = Counter()  # how many, by who they are
        self._is_at_work = False
        self._position = Position(0)

    def watch(self, wallet_id: UUID, since: int | None, actor: str) -> Watch:
        """Whatever happens to the wallet from now on, or after position `since`.

        Raises TooManyRequests where too many wait, or a db.Error where the database stays away.
        """
        horizon = _ask(log.horizon)
        watch = Watch(wallet_id, actor, self._leave)
        with self._lock:
            # The tail may be a look behind; what it tells again is known by its id.
            until = max(horizon, self._join(watch, horizon))
        try:
            watch.tell_first(_ask(lambda: _missed(wallet_id, since, horizon, until)))
        except Exception:
            watch.close()
            raise
        return watch

    def _join(self, watch: Watch, horizon: int) -> int:
        """Up to where the tail may have passed already what it will not tell any more."""
        if self._waiting.total() >= MAX_STREAMS or (
            watch.actor and self._waiting[watch.actor] >= MAX_STREAMS_PER_CALLER
        ):
            raise TooManyRequests("Too many wait for events; ask for the wallet instead.")
        if not self._is_at_work:
            threading.Thread(target=self._work, name="tail", daemon=True).start()
            self._is_at_work, self._position = True, Position(horizon)
        self._waiting[watch.actor] += 1
        self._watches[watch.wallet_id].add(watch)
        return self._position.end or self._position.begin

    def _leave(self, watch: Watch) -> None:
        with self._lock:
            watches = self._watches.get(watch.wallet_id, set())
            if watch in watches:
                self._waiting -= Counter([watch.actor])
                watches.remove(watch)
                if not watches:
                    del self._watches[watch.wallet_id]

    def _work(self) -> None:
        while True:
            try:
                while self._look():
                    time.sleep(0 if self._position.after else POLL_SECONDS)  # amid a window there is more
                return
            except db.Error as error:
                logger.warning("who waits for events waits for the database: %s", str(error).strip())
                time.sleep(POLL_SECONDS)
            except Exception:
                logger.exception("who waits for events waits for a fault to pass")
                time.sleep(ERROR_PAUSE_SECONDS)

    def _look(self) -> bool:
        """Tell what is new. False where nobody waits: who comes then begins anew."""
        try:
            # Who comes meanwhile waits: they are told from the position on, and it must not move away.
            with self._lock, database_retry.disconnected_when_slow(DEFAULT_DB_ALIAS):
                self._is_at_work = bool(self._watches)
                if self._is_at_work:
                    self._step()
                return self._is_at_work
        finally:
            database_retry.reconnect(DEFAULT_DB_ALIAS)

    def _step(self) -> None:
        window = self._position
        entries, position = log.read(window, MAX_ENTRIES_PER_READ, list(self._watches))
        for moment, wallet_id in _moments(entries, window, position):
            for watch in self._watches[wallet_id]:
                watch.tell(moment)
        self._position = position  # not before they are told: what fails is done again


def _ask(work: Callable[[], T]) -> T:
    """What the database says. Who waits for the tail keeps no connection: the tail may wait for that one."""
    try:
        return database_retry.retry_until_deadline(work)
    finally:
        give_back_connection()


def _missed(wallet_id: UUID, since: int | None, horizon: int, until: int) -> list[StreamItem]:
    """What the tail has passed, after `since` or else the horizon: it may have moved on meanwhile."""
    begin = horizon if since is None else since
    too_much = [StreamItem(None, until)]
    if not horizon - MAX_TRANSACTIONS_BEHIND <= begin <= horizon:
        return too_much
    found: list[StreamItem] = []
    position = Position(begin, until)
    while position.begin < until and len(found) <= MAX_QUEUED_ITEMS:
        window = position
        entries, position = log.read(window, MAX_ENTRIES_PER_READ, [wallet_id])
        found += [moment for moment, _ in _moments(entries, window, position)]
    return found if len(found) <= MAX_QUEUED_ITEMS else too_much


def _moments(
    entries: Sequence[LogItem], window: Position, after: Position
) -> Iterator[tuple[StreamItem, UUID]]:
    """Cut off in the middle of a window, one has to begin it again: only its last event leads out of it."""
    events = events_of(entries)
    last = {event.wallet_id: event for event in events}  # of each wallet, as each is told of its own alone
    for event in events:
        position = after.begin if event is last[event.wallet_id] else window.begin
        yield StreamItem(event, position), event.wallet_id


@once
def tail() -> Tail:
    """This process's one."""
    return Tail()
