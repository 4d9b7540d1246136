"""Batches concurrent calls: the requests in flight share the next call.

Each caller enqueues a pending call and blocks. One worker thread (a greenlet under gevent) drains the queue
and makes a single call for all pending items. Items that arrive while that call runs form the next batch.
There is no timer and no added delay: a single item is processed at once.
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

RETRY_PAUSE_SECONDS: Final = 0.05  # until deferred calls are tried again, if no new call arrives before
GRACE_SECONDS: Final = 1.0  # for a claimed call to end after its deadline


def once(make: Callable[[], ResultT]) -> Callable[[], ResultT]:
    """Return a function that calls `make` once, also for concurrent callers, unlike functools.cache."""
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
    """One item of a caller, and its result when there is one."""

    __slots__ = (
        *("_claim", "_error", "_result", "_wakeup"),
        *("deadline", "is_in_doubt", "is_deferred", "is_done", "item", "span"),
    )

    def __init__(self, item: ItemT, timeout_seconds: float) -> None:
        self.item = item
        self.span = traces.current_span()  # of the caller
        self.deadline = time.monotonic() + timeout_seconds
        self.is_deferred = False  # put back once, because another transaction holds a lock that it needs
        self.is_in_doubt = False  # the outcome of an attempt is unknown: it may have been committed
        self._claim = threading.Lock()
        self.is_done = False
        self._wakeup = threading.Lock()  # held until there is a result
        self._wakeup.acquire()
        self._result: ResultT
        self._error: BaseException | None = None

    def claim(self) -> bool:
        """Take the call to process it. Return False after its deadline, when the caller gives up."""
        return self.is_in_time and self._claim.acquire(blocking=False)

    def defer(self) -> None:
        """Put the claimed call back: nothing was done, and it is tried again until its deadline."""
        self.is_deferred = True
        if self.is_in_time:
            self._claim.release()
        else:
            self.fail(self._timeout_error())

    def resolve(self, result: ResultT) -> None:
        self._result = result
        self.is_done = True
        self._wakeup.release()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self.is_done = True
        self._wakeup.release()

    @property
    def is_in_time(self) -> bool:
        return time.monotonic() < self.deadline

    def wait(self) -> ResultT:
        """Block until there is a result, and return it.

        Raises what the shared call raised; TooManyRequests if nothing was done because a lock was held the
        whole time; Unavailable if the shared call did not end in time, so that its outcome is unknown.
        """
        for timeout_seconds in (max(0, self.deadline - time.monotonic()), GRACE_SECONDS):
            if self._wakeup.acquire(timeout=timeout_seconds):
                break
            if self._claim.acquire(blocking=False):  # the worker thread cannot claim it any more
                raise self._timeout_error()
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

    def _timeout_error(self) -> Problem:
        if self.is_deferred and not self.is_in_doubt:
            return TooManyRequests("The wallet was busy for too long.")
        return Unavailable()


class Batcher(Generic[ItemT, ResultT]):
    """Calls `run` with all pending calls; of new ones, at most `max_batch_size` at once.

    `run` resolves or fails every call that it claims, and returns those to try again. If `queue_limit` items
    wait already, a new one is refused. `weigh` returns how many items of the batch an item counts for. Create
    the batcher in the process that uses it: its thread does not survive a fork.
    """

    def __init__(  # noqa: PLR0913
        self,
        name: str,
        run: Callable[[Sequence[PendingCall[ItemT, ResultT]]], list[PendingCall[ItemT, ResultT]]],
        *,
        max_batch_size: int,
        queue_limit: int,
        timeout_seconds: float,
        weigh: Callable[[ItemT], int] = lambda _: 1,
    ) -> None:
        self._run = run
        self._weigh = weigh
        self._queued_weight = 0
        self._deferred_weight = 0
        self._counting = threading.Lock()
        self._max_batch_size = max_batch_size
        self._queue_limit = queue_limit
        self._timeout_seconds = timeout_seconds
        self._queue: SimpleQueue[PendingCall[ItemT, ResultT]] = SimpleQueue()
        self._deferred: list[PendingCall[ItemT, ResultT]] = []
        self._batches = metrics.Batches(
            name, lambda: self._queued_weight + self._deferred_weight, queue_limit
        )
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def call(self, item: ItemT) -> ResultT:
        """Return the result. Raises as PendingCall.wait does, or TooManyRequests if the queue is full."""
        return self._enqueue([item])[0].wait()

    def call_all(self, items: Sequence[ItemT]) -> list[ResultT | Exception]:
        """Return each result or error. Raises TooManyRequests if the queue cannot take all items."""
        return [pending.result_or_error() for pending in self._enqueue(items)]

    def _enqueue(self, items: Sequence[ItemT]) -> list[PendingCall[ItemT, ResultT]]:
        weight = sum(map(self._weigh, items))
        with self._counting:
            ahead = self._queued_weight + self._deferred_weight
            if ahead and ahead + weight > self._queue_limit:  # an empty queue takes a batch of any weight
                raise TooManyRequests
            self._queued_weight += weight
        calls: list[PendingCall[ItemT, ResultT]] = [
            PendingCall(item, self._timeout_seconds) for item in items
        ]
        for pending in calls:
            self._queue.put(pending)
        return calls

    def _work(self) -> None:
        while True:
            arrived, weight = self._take_queued()
            calls = self._deferred + arrived
            began = time.monotonic()
            waited = began - (arrived[0].deadline - self._timeout_seconds) if arrived else None
            try:
                self._deferred = self._run(calls)
                self._batches.count(weight + self._deferred_weight, waited, time.monotonic() - began)
            except Exception as error:  # a bug must not leave callers blocked, nor end this thread
                logger.exception("a shared call failed")
                self._deferred = []
                for pending in calls:
                    if not pending.is_done:
                        pending.fail(error)
            self._deferred_weight = sum(self._weigh(pending.item) for pending in self._deferred)

    def _take_queued(self) -> tuple[list[PendingCall[ItemT, ResultT]], int]:
        """Return the queued calls and their weight. If the queue is empty, wait for the next call."""
        arrived: list[PendingCall[ItemT, ResultT]] = []
        weight = 0
        with suppress(Empty):
            while weight < self._max_batch_size:
                pending = self._queue.get_nowait() if arrived else self._wait_for_first()
                arrived.append(pending)
                weight += self._weigh(pending.item)
        with self._counting:
            self._queued_weight -= weight
        return arrived, weight

    def _wait_for_first(self) -> PendingCall[ItemT, ResultT]:
        pending = self._queue.get(timeout=RETRY_PAUSE_SECONDS if self._deferred else None)
        self._yield_to_requests()
        return pending

    def _yield_to_requests(self) -> None:
        """Let other threads run as long as they enqueue calls.

        Requests arrive in bursts, because clients send the next one when a batch of responses reaches them.
        Otherwise the first of a burst would form a batch alone, and the rest would wait for its commit.
        """
        seen = -1
        while seen < self._queue.qsize() < self._max_batch_size:
            seen = self._queue.qsize()
            time.sleep(0)  # the event loop hands received bytes to the request threads,
            time.sleep(0)  # which then parse and enqueue
