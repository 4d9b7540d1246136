"""The requests in flight share the next call: the thread, the queue, the wake-up.

Whoever asks puts a ticket into the queue and waits. One long-lived thread (under gevent: greenlet) takes all
tickets that are waiting and makes one call for them; while it runs, the next ones gather. There is no timer
and no added delay: alone, a ticket goes at once.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

from wallets.observability import metrics, traces
from wallets.problems import Problem, TooManyRequests, Unavailable

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)

RETRY_PAUSE_SECONDS: Final = (
    0.05  # seconds until tickets that came back are tried again, where no new one comes
)
GRACE_SECONDS: Final = 1.0  # seconds past its deadline for a ticket that is being worked on


def once(make: Callable[[], ResultT]) -> Callable[[], ResultT]:
    """What `make` makes, once. functools.cache makes several of it where the first calls come together."""
    lock = threading.Lock()
    made: list[ResultT] = []

    @wraps(make)
    def get() -> ResultT:
        if not made:
            with lock:
                if not made:
                    made.append(make())
        return made[0]

    return get


class PendingCall(Generic[ItemT, ResultT]):
    """One item, and the place where its result will be."""

    __slots__ = (
        *("_claim", "_error", "_result", "_wakeup"),
        *("deadline", "is_in_doubt", "is_deferred", "is_settled", "item", "span"),
    )

    def __init__(self, item: ItemT, patience: float) -> None:
        self.item = item
        self.span = traces.here()  # which asks
        self.deadline = time.monotonic() + patience
        self.is_deferred = False  # came back once: something that it needs is taken
        self.is_in_doubt = False  # an attempt ended without a word: it may have been done
        self._claim = threading.Lock()
        self.is_settled = False
        self._wakeup = threading.Lock()  # held until there is a result
        self._wakeup.acquire()
        self._result: ResultT
        self._error: BaseException | None = None

    def claim(self) -> bool:
        """Take the ticket to work on it. False past its deadline: whoever asked gives up."""
        return self.is_in_time and self._claim.acquire(blocking=False)

    def park(self) -> None:
        """Put the claimed ticket back: nothing was done, and it is to be tried again if there is time."""
        self.is_deferred = True
        if self.is_in_time:
            self._claim.release()
        else:
            self.fail(self._given_up())

    def settle(self, result: ResultT) -> None:
        self._result = result
        self.is_settled = True
        self._wakeup.release()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self.is_settled = True
        self._wakeup.release()

    @property
    def is_in_time(self) -> bool:
        return time.monotonic() < self.deadline

    def wait(self) -> ResultT:
        """The result, once there is one.

        Raises what the call raised; TooManyRequests (nothing was done: what it needs was taken all the time);
        Unavailable (the call did not come back in time; what it did is not known unless it never began).
        """
        for patience in (max(0, self.deadline - time.monotonic()), GRACE_SECONDS):
            if self._wakeup.acquire(timeout=patience):
                break
            if self._claim.acquire(blocking=False):  # nobody works on it, and now nobody will
                raise self._given_up()
        else:
            raise Unavailable
        if self._error is not None:
            raise self._error
        return self._result

    def result_or_error(self) -> ResultT | Exception:
        try:
            return self.wait()
        except Exception as error:
            return error

    def _given_up(self) -> Problem:
        if self.is_deferred and not self.is_in_doubt:
            return TooManyRequests("The wallet was busy for too long.")
        return Unavailable()


class Batcher(Generic[ItemT, ResultT]):
    """Calls `run` with all tickets that are waiting, at most `most` new ones at once.

    `run` settles or fails every ticket that it claims, and returns those to be tried again.
    Must be made in the process that uses it: its thread does not survive a fork.
    """

    def __init__(  # noqa: PLR0913
        self,
        name: str,
        run: Callable[[Sequence[PendingCall[ItemT, ResultT]]], list[PendingCall[ItemT, ResultT]]],
        *,
        most: int,
        bound: int,
        patience: float,
        weigh: Callable[[ItemT], int] = lambda _: 1,
    ) -> None:
        self._run = run
        self._weigh = weigh
        self._waiting = 0  # the weight of what is in the queue
        self._parked = 0  # and of what is to be tried again
        self._counting = threading.Lock()
        self._most = most
        self._bound = bound
        self._patience = patience
        self._queue: SimpleQueue[PendingCall[ItemT, ResultT]] = SimpleQueue()
        self._again: list[PendingCall[ItemT, ResultT]] = []
        self._batches = metrics.Batches(name, lambda: self._waiting + self._parked, bound)
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def ask(self, item: ItemT) -> ResultT:
        """The result. Raises as Ticket.wait does, and TooManyRequests at once where the queue is full."""
        return self._put([item])[0].wait()

    def ask_all(self, items: Sequence[ItemT]) -> list[ResultT | Exception]:
        """The result of each, or what was raised instead. Raises TooManyRequests where not all have room."""
        return [ticket.result_or_error() for ticket in self._put(items)]

    def _put(self, items: Sequence[ItemT]) -> list[PendingCall[ItemT, ResultT]]:
        weight = sum(map(self._weigh, items))
        with self._counting:
            ahead = self._waiting + self._parked
            if ahead and ahead + weight > self._bound:  # where nothing waits, there is room for anything
                raise TooManyRequests
            self._waiting += weight
        tickets: list[PendingCall[ItemT, ResultT]] = [PendingCall(item, self._patience) for item in items]
        for ticket in tickets:
            self._queue.put(ticket)
        return tickets

    def _work(self) -> None:
        while True:
            arrived, weight = self._arrived()
            tickets = self._again + arrived
            began = time.monotonic()
            waited = began - (arrived[0].deadline - self._patience) if arrived else None
            try:
                self._again = self._run(tickets)
                self._batches.count(weight + self._parked, waited, time.monotonic() - began)
            except Exception as error:  # a fault of ours must not leave anybody waiting, nor end this thread
                logger.exception("a shared call failed")
                self._again = []
                for ticket in tickets:
                    if not ticket.is_settled:
                        ticket.fail(error)
            self._parked = sum(self._weigh(ticket.item) for ticket in self._again)

    def _arrived(self) -> tuple[list[PendingCall[ItemT, ResultT]], int]:
        """Those waiting, and their weight; where none is, the next one to come."""
        arrived: list[PendingCall[ItemT, ResultT]] = []
        weight = 0
        with suppress(Empty):
            while weight < self._most:
                ticket = self._queue.get_nowait() if arrived else self._first()
                arrived.append(ticket)
                weight += self._weigh(ticket.item)
        with self._counting:
            self._waiting -= weight
        return arrived, weight

    def _first(self) -> PendingCall[ItemT, ResultT]:
        ticket = self._queue.get(timeout=RETRY_PAUSE_SECONDS if self._again else None)
        self._let_others_arrive()
        return ticket

    def _let_others_arrive(self) -> None:
        """Give way while requests that are already being read turn up: they come in bursts, as answers go.

        Else the first of a burst would go alone, and the rest wait for its commit.
        """
        seen = -1
        while seen < self._queue.qsize() < self._most:
            seen = self._queue.qsize()
            time.sleep(0)  # what has come is given to those who read it,
            time.sleep(0)  # and they get as far as the queue
