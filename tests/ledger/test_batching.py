"""Concurrent calls share one batch; waiting is bounded, and an abandoned call is not carried out."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from wallets import batching as module
from wallets.batching import Batcher, PendingCall, once
from wallets.problems import TooManyRequests, Unavailable

LONG_TIMEOUT_SECONDS = 60.0
TextCall = PendingCall[str, str]


def pending_call(timeout_seconds: float = LONG_TIMEOUT_SECONDS) -> TextCall:
    return PendingCall("item", timeout_seconds)


@pytest.fixture
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0)


# --- One pending call -------------------------------------------------------------------------------
def test_pending_call_returns_its_result() -> None:
    call = pending_call()
    call.resolve("result")
    assert call.wait() == "result"


def test_pending_call_raises_its_error() -> None:
    call = pending_call()
    call.fail(LookupError("mine"))
    with pytest.raises(LookupError, match="mine"):
        call.wait()


def test_pending_call_is_claimed_once() -> None:
    call = pending_call()
    assert call.claim()
    assert not call.claim()


def test_deferred_call_is_claimed_again() -> None:
    call = pending_call()
    call.claim()
    call.defer()
    assert call.claim()


def test_pending_call_is_not_claimed_after_its_deadline() -> None:
    assert not pending_call(timeout_seconds=0).claim()


def test_unclaimed_call_raises_unavailable_after_its_deadline() -> None:
    with pytest.raises(Unavailable):
        pending_call(timeout_seconds=0).wait()


def test_deferred_call_raises_too_many_requests_after_its_deadline() -> None:
    call = pending_call()
    call.claim()
    call.defer()
    call.deadline = 0
    with pytest.raises(TooManyRequests):
        call.wait()


def test_call_in_doubt_raises_unavailable_after_its_deadline() -> None:
    call = pending_call()
    call.claim()
    call.is_in_doubt = True
    call.defer()
    call.deadline = 0
    with pytest.raises(Unavailable):
        call.wait()


def test_claimed_call_may_finish_shortly_after_its_deadline() -> None:
    call = pending_call()
    call.claim()
    call.deadline = 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call.wait)
        call.resolve("late")
        assert waiting.result() == "late"


@pytest.mark.usefixtures("_no_grace")
def test_claimed_call_raises_unavailable_after_the_grace_time() -> None:
    call = pending_call()
    call.claim()
    call.deadline = 0
    with pytest.raises(Unavailable):
        call.wait()


def test_call_deferred_after_its_deadline_is_not_claimed_again() -> None:
    call = pending_call()
    call.claim()
    call.deadline = 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call.wait)
        call.defer()
        with pytest.raises(TooManyRequests):
            waiting.result()
    assert not call.claim()


# --- One object for each process --------------------------------------------------------------------
def test_once_creates_one_object_for_concurrent_callers() -> None:
    barrier = threading.Barrier(8)
    made: list[object] = []

    @once
    def thing() -> object:
        time.sleep(0)  # let the other threads run
        made.append(object())
        return made[-1]

    def call_thing() -> object:
        barrier.wait()
        return thing()

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(call_thing) for _ in range(8)]
    assert {answer.result() for answer in answers} == {made[0]}
    assert len(made) == 1


# --- Batcher ----------------------------------------------------------------------------------------
class RecordingHandler:
    """A batch handler that waits for `may_end`, resolves each item to upper case and records the batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.has_begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.error: Exception | None = None
        self.busy: set[str] = set()

    def run(self, calls: Sequence[TextCall]) -> list[TextCall]:
        claimed = [call for call in calls if call.claim()]
        self.batches.append([call.item for call in claimed])
        self.has_begun.release()
        self.may_end.acquire()
        if self.error:
            raise self.error
        deferred = []
        for call in claimed:
            if call.item in self.busy:
                call.defer()
                deferred.append(call)
            else:
                call.resolve(call.item.upper())
        return deferred


@pytest.fixture
def work() -> RecordingHandler:
    return RecordingHandler()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def new_batcher(
    work: RecordingHandler,
    max_batch_size: int = 100,
    queue_limit: int = 100,
    timeout_seconds: float = LONG_TIMEOUT_SECONDS,
) -> Batcher[str, str]:
    return Batcher(
        "test",
        work.run,
        max_batch_size=max_batch_size,
        queue_limit=queue_limit,
        timeout_seconds=timeout_seconds,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def call_while_busy(
    pool: ThreadPoolExecutor, batcher: Batcher[str, str], work: RecordingHandler, *items: str
) -> list[Future[str]]:
    """Call with "first", and while its batch runs with the items in their order."""
    answers = [pool.submit(batcher.call, "first")]
    work.has_begun.acquire()
    for count, item in enumerate(items, start=1):
        answers.append(pool.submit(batcher.call, item))
        wait_until(lambda count=count: batcher._queue.qsize() == count)  # type: ignore[misc]
    return answers


def test_single_call_runs_at_once(work: RecordingHandler) -> None:
    work.may_end.release()
    assert new_batcher(work).call("a") == "A"
    assert work.batches == [["a"]]


def test_calls_made_during_a_batch_form_the_next_batch(
    pool: ThreadPoolExecutor, work: RecordingHandler
) -> None:
    answers = call_while_busy(pool, new_batcher(work), work, "a", "b", "c")
    work.may_end.release(2)
    assert [answer.result() for answer in answers] == ["FIRST", "A", "B", "C"]
    assert work.batches == [["first"], ["a", "b", "c"]]


def test_batch_has_at_most_max_batch_size_items(pool: ThreadPoolExecutor, work: RecordingHandler) -> None:
    answers = call_while_busy(pool, new_batcher(work, max_batch_size=2), work, "a", "b", "c")
    work.may_end.release(3)
    assert [answer.result() for answer in answers] == ["FIRST", "A", "B", "C"]
    assert work.batches == [["first"], ["a", "b"], ["c"]]


def test_full_queue_refuses_at_once(pool: ThreadPoolExecutor, work: RecordingHandler) -> None:
    batcher = new_batcher(work, queue_limit=2)
    answers = call_while_busy(pool, batcher, work, "a", "b")
    with pytest.raises(TooManyRequests):
        batcher.call("one too many")
    work.may_end.release(2)
    assert [answer.result() for answer in answers] == ["FIRST", "A", "B"]
    assert work.batches == [["first"], ["a", "b"]]


def test_deferred_call_is_retried_before_new_calls(pool: ThreadPoolExecutor, work: RecordingHandler) -> None:
    work.busy = {"first"}
    answers = call_while_busy(pool, new_batcher(work), work, "a")
    work.may_end.release()
    work.has_begun.acquire()
    work.busy = set()
    work.may_end.release()
    assert [answer.result() for answer in answers] == ["FIRST", "A"]
    assert work.batches == [["first"], ["first", "a"]]


def test_deferred_call_is_retried_without_new_calls(pool: ThreadPoolExecutor, work: RecordingHandler) -> None:
    work.busy = {"a"}
    answer = pool.submit(new_batcher(work).call, "a")
    work.may_end.release()
    for _ in range(2):
        work.has_begun.acquire()
    work.busy = set()
    work.may_end.release()
    assert answer.result() == "A"
    assert work.batches == [["a"], ["a"]]


def test_deferred_call_counts_toward_the_queue_limit(
    pool: ThreadPoolExecutor, work: RecordingHandler
) -> None:
    work.busy = {"a"}
    batcher = new_batcher(work, queue_limit=1)
    answer = pool.submit(batcher.call, "a")
    work.may_end.release()
    for _ in range(2):
        work.has_begun.acquire()
    with pytest.raises(TooManyRequests):
        batcher.call("b")
    work.busy = set()
    work.may_end.release()
    assert answer.result() == "A"


def test_batch_error_reaches_every_caller_and_the_next_batch_runs(
    pool: ThreadPoolExecutor, work: RecordingHandler
) -> None:
    batcher = new_batcher(work)
    answers = call_while_busy(pool, batcher, work, "a", "b")
    work.error = LookupError("the handler failed")
    work.may_end.release(2)
    for answer in answers:
        with pytest.raises(LookupError, match="the handler failed"):
            answer.result()
    work.error = None
    work.may_end.release()
    assert batcher.call("c") == "C"


def test_timed_out_call_is_not_carried_out(pool: ThreadPoolExecutor, work: RecordingHandler) -> None:
    batcher = new_batcher(work)
    first = call_while_busy(pool, batcher, work)[0]
    batcher._timeout_seconds = 0
    with pytest.raises(Unavailable):
        batcher.call("gone")
    work.may_end.release(2)
    assert first.result() == "FIRST"
    work.has_begun.acquire()
    assert work.batches == [["first"], []]
