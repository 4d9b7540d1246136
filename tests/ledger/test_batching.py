"""The requests in flight share the next call; nobody waits for ever, and nothing is done for who has gone."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from wallets import batching as module
from wallets.batching import Batcher, PendingCall, once
from wallets.problems import TooManyRequests, Unavailable

LONG = 60.0
TextTicket = PendingCall[str, str]


def ticket(patience: float = LONG) -> TextTicket:
    return PendingCall("asked", patience)


@pytest.fixture
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0)


# --- A ticket ---------------------------------------------------------------------------------------
def test_a_ticket_brings_its_result() -> None:
    given = ticket()
    given.resolve("result")
    assert given.wait() == "result"


def test_a_ticket_brings_its_error() -> None:
    given = ticket()
    given.fail(LookupError("mine"))
    with pytest.raises(LookupError, match="mine"):
        given.wait()


def test_a_ticket_is_claimed_once() -> None:
    given = ticket()
    assert given.claim()
    assert not given.claim()


def test_a_parked_ticket_is_claimed_again() -> None:
    given = ticket()
    given.claim()
    given.defer()
    assert given.claim()


def test_a_ticket_is_not_claimed_past_its_deadline() -> None:
    assert not ticket(patience=0).claim()


def test_who_was_not_served_in_time_gives_up() -> None:
    with pytest.raises(Unavailable):
        ticket(patience=0).wait()


def test_who_waited_for_something_taken_is_told_that_nothing_was_done() -> None:
    given = ticket()
    given.claim()
    given.defer()
    given.deadline = 0
    with pytest.raises(TooManyRequests):
        given.wait()


def test_who_may_have_been_served_is_not_told_that_nothing_was_done() -> None:
    given = ticket()
    given.claim()
    given.is_in_doubt = True
    given.defer()
    given.deadline = 0
    with pytest.raises(Unavailable):
        given.wait()


def test_work_that_has_begun_gets_a_moment_past_the_deadline() -> None:
    given = ticket()
    given.claim()
    given.deadline = 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(given.wait)
        given.resolve("late")
        assert waiting.result() == "late"


@pytest.mark.usefixtures("_no_grace")
def test_work_that_does_not_end_is_waited_for_no_longer() -> None:
    given = ticket()
    given.claim()
    given.deadline = 0
    with pytest.raises(Unavailable):
        given.wait()


def test_work_that_came_to_nothing_past_the_deadline_is_not_begun_again() -> None:
    given = ticket()
    given.claim()
    given.deadline = 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(given.wait)
        given.defer()
        with pytest.raises(TooManyRequests):
            waiting.result()
    assert not given.claim()


# --- One for the whole process ----------------------------------------------------------------------
def test_what_is_made_once_is_made_once_though_many_ask_together() -> None:
    together = threading.Barrier(8)
    made: list[object] = []

    @once
    def thing() -> object:
        time.sleep(0)  # lets the others in
        made.append(object())
        return made[-1]

    def ask() -> object:
        together.wait()
        return thing()

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask) for _ in range(8)]
    assert {answer.result() for answer in answers} == {made[0]}
    assert len(made) == 1


# --- A gather ---------------------------------------------------------------------------------------
class Work:
    """What the gather runs: answers in capitals, once it may, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.has_begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.error: Exception | None = None
        self.busy: set[str] = set()

    def run(self, tickets: Sequence[TextTicket]) -> list[TextTicket]:
        claimed = [given for given in tickets if given.claim()]
        self.batches.append([given.item for given in claimed])
        self.has_begun.release()
        self.may_end.acquire()
        if self.error:
            raise self.error
        again = []
        for given in claimed:
            if given.item in self.busy:
                given.defer()
                again.append(given)
            else:
                given.resolve(given.item.upper())
        return again


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def gather(work: Work, most: int = 100, bound: int = 100, patience: float = LONG) -> Batcher[str, str]:
    return Batcher("test", work.run, max_batch_size=most, queue_limit=bound, timeout_seconds=patience)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def ask_while_busy(
    pool: ThreadPoolExecutor, gathered: Batcher[str, str], work: Work, *items: str
) -> list[Future[str]]:
    """Ask for "first", and for the items, in their order, while the call for it runs."""
    answers = [pool.submit(gathered.call, "first")]
    work.has_begun.acquire()
    for count, item in enumerate(items, start=1):
        answers.append(pool.submit(gathered.call, item))
        wait_until(lambda count=count: gathered._queue.qsize() == count)  # type: ignore[misc]
    return answers


def test_alone_a_request_goes_at_once(work: Work) -> None:
    work.may_end.release()
    assert gather(work).call("a") == "A"
    assert work.batches == [["a"]]


def test_those_that_come_while_a_call_runs_share_the_next(pool: ThreadPoolExecutor, work: Work) -> None:
    answers = ask_while_busy(pool, gather(work), work, "a", "b", "c")
    work.may_end.release(2)
    assert [answer.result() for answer in answers] == ["FIRST", "A", "B", "C"]
    assert work.batches == [["first"], ["a", "b", "c"]]


def test_a_call_is_made_for_so_many_at_most(pool: ThreadPoolExecutor, work: Work) -> None:
    answers = ask_while_busy(pool, gather(work, most=2), work, "a", "b", "c")
    work.may_end.release(3)
    assert [answer.result() for answer in answers] == ["FIRST", "A", "B", "C"]
    assert work.batches == [["first"], ["a", "b"], ["c"]]


def test_a_full_queue_refuses_at_once(pool: ThreadPoolExecutor, work: Work) -> None:
    gathered = gather(work, bound=2)
    answers = ask_while_busy(pool, gathered, work, "a", "b")
    with pytest.raises(TooManyRequests):
        gathered.call("one too many")
    work.may_end.release(2)
    assert [answer.result() for answer in answers] == ["FIRST", "A", "B"]
    assert work.batches == [["first"], ["a", "b"]]


def test_what_comes_back_is_tried_again_before_what_is_new(pool: ThreadPoolExecutor, work: Work) -> None:
    work.busy = {"first"}
    answers = ask_while_busy(pool, gather(work), work, "a")
    work.may_end.release()
    work.has_begun.acquire()
    work.busy = set()
    work.may_end.release()
    assert [answer.result() for answer in answers] == ["FIRST", "A"]
    assert work.batches == [["first"], ["first", "a"]]


def test_what_comes_back_is_tried_again_where_nothing_is_new(pool: ThreadPoolExecutor, work: Work) -> None:
    work.busy = {"a"}
    answer = pool.submit(gather(work).call, "a")
    work.may_end.release()
    for _ in range(2):
        work.has_begun.acquire()
    work.busy = set()
    work.may_end.release()
    assert answer.result() == "A"
    assert work.batches == [["a"], ["a"]]


def test_what_comes_back_counts_for_the_bound(pool: ThreadPoolExecutor, work: Work) -> None:
    work.busy = {"a"}
    gathered = gather(work, bound=1)
    answer = pool.submit(gathered.call, "a")
    work.may_end.release()
    for _ in range(2):
        work.has_begun.acquire()
    with pytest.raises(TooManyRequests):
        gathered.call("b")
    work.busy = set()
    work.may_end.release()
    assert answer.result() == "A"


def test_a_call_that_raises_leaves_nobody_waiting_and_the_next_is_made(
    pool: ThreadPoolExecutor, work: Work
) -> None:
    gathered = gather(work)
    answers = ask_while_busy(pool, gathered, work, "a", "b")
    work.error = LookupError("a fault of ours")
    work.may_end.release(2)
    for answer in answers:
        with pytest.raises(LookupError, match="a fault of ours"):
            answer.result()
    work.error = None
    work.may_end.release()
    assert gathered.call("c") == "C"


def test_nothing_is_done_for_who_has_given_up(pool: ThreadPoolExecutor, work: Work) -> None:
    gathered = gather(work)
    first = ask_while_busy(pool, gathered, work)[0]
    gathered._timeout_seconds = 0
    with pytest.raises(Unavailable):
        gathered.call("gone")
    work.may_end.release(2)
    assert first.result() == "FIRST"
    work.has_begun.acquire()
    assert work.batches == [["first"], []]
