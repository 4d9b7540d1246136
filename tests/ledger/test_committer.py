"""Every command is settled once, even if the database fails while its batch runs."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
from django import db
from psycopg import errors as postgres
from psycopg_pool import PoolTimeout
from pytest_django import Settings

from tests.support.cluster import cluster
from wallets import database_retry
from wallets.batching import Batcher
from wallets.ledger import committer as module
from wallets.ledger.commands import Command, Deposit, Withdraw
from wallets.ledger.committer import LEDGER, Committer, PendingWork, submit
from wallets.ledger.decisions import Outcome, Posted
from wallets.ledger.execute import DEFERRED, Deferred, execute
from wallets.ledger.wallets import Opening, open_wallet
from wallets.models import Operation
from wallets.problems import InsufficientFunds, TooManyRequests, Unavailable

LONG_TIMEOUT_SECONDS = 60.0
HELD, FREE = uuid4(), uuid4()


def pending_work(wallet_id: UUID = FREE, timeout_seconds: float = LONG_TIMEOUT_SECONDS) -> PendingWork:
    return PendingWork(Deposit(wallet_id=wallet_id, amount=Decimal(1)), timeout_seconds)


def database_error(kind: type[db.Error], cause: psycopg.Error) -> db.Error:
    """Return the Django error that wraps this psycopg error."""
    error = kind(str(cause))
    error.__cause__ = cause
    return error


def connection_lost() -> db.Error:
    return database_error(db.OperationalError, psycopg.OperationalError("the connection is lost"))


def lock_timeout() -> db.Error:
    return database_error(db.OperationalError, postgres.LockNotAvailable("lock timeout"))


def no_connection() -> db.Error:
    return database_error(db.OperationalError, PoolTimeout("no connection in time"))


def violation() -> db.Error:
    return database_error(db.IntegrityError, postgres.CheckViolation("a check"))


# --- With a scripted database -----------------------------------------------------------------------
class ExecuteCall:
    """The arguments of one call of `execute`."""

    def __init__(self, commands: Sequence[Command], contended: Collection[UUID], is_recovering: bool) -> None:
        self.commands = list(commands)
        self.contended = set(contended)
        self.is_recovering = is_recovering


ScriptStep = db.Error | Callable[[Command], Outcome | Deferred | db.Error]


class Script:
    """A replacement of `execute`: each call takes the next step; the last step repeats."""

    def __init__(self) -> None:
        self.steps: list[ScriptStep] = []
        self.calls: list[ExecuteCall] = []

    def __call__(
        self, commands: Sequence[Command], *, using: str, contended: Collection[UUID], is_recovering: bool
    ) -> list[Outcome | Deferred]:
        self.calls.append(ExecuteCall(commands, contended, is_recovering))
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, db.Error):
            raise step
        outcomes = []
        for command in commands:
            outcome = step(command)
            if isinstance(outcome, db.Error):
                raise outcome
            outcomes.append(outcome)
        return outcomes


class RefusalOfCommand(InsufficientFunds):
    """An outcome that names its command."""

    def __init__(self, command: Command) -> None:
        super().__init__()
        self.operation_id = command.id


def defer_if_held(command: Command) -> Outcome | Deferred:
    return DEFERRED if command.wallet_id == HELD else RefusalOfCommand(command)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    monkeypatch.setattr(module, "execute", script)
    monkeypatch.setattr(database_retry, "RECONNECT_PAUSE_SECONDS", 0)
    return script


def run(*pending: PendingWork) -> list[PendingWork]:
    return Committer(LEDGER).run(pending)


def assert_own_outcomes(*pending: PendingWork) -> None:
    """Assert that each item has the outcome of its own command."""
    for work in pending:
        outcome = work.wait()
        assert isinstance(outcome, RefusalOfCommand)
        assert isinstance(work.item, Command)
        assert outcome.operation_id == work.item.id


def test_one_call_settles_all_pending_work(script: Script) -> None:
    script.steps = [RefusalOfCommand]
    pending = [pending_work() for _ in range(3)]
    assert run(*pending) == []
    assert_own_outcomes(*pending)
    assert [call.commands for call in script.calls] == [[work.item for work in pending]]
    assert not script.calls[0].is_recovering
    assert not script.calls[0].contended


def test_timed_out_command_is_not_carried_out(script: Script) -> None:
    script.steps = [RefusalOfCommand]
    expired, active = pending_work(timeout_seconds=0), pending_work()
    run(expired, active)
    assert [call.commands for call in script.calls] == [[active.item]]
    assert not expired.is_done


def test_failed_batch_fails_only_the_invalid_command(script: Script) -> None:
    invalid, *valid = [pending_work() for _ in range(3)]

    def outcome(command: Command) -> Outcome | db.Error:
        return violation() if command is invalid.item else RefusalOfCommand(command)

    script.steps = [outcome]
    assert run(valid[0], invalid, valid[1]) == []
    assert_own_outcomes(*valid)
    with pytest.raises(db.IntegrityError):
        invalid.wait()
    assert [len(call.commands) for call in script.calls] == [3, 1, 1, 1]


def test_lock_timeout_delays_only_its_own_wallet(script: Script) -> None:
    script.steps = [lock_timeout(), defer_if_held]
    held, free = pending_work(HELD), pending_work(FREE)
    assert run(held, free) == [held]
    assert_own_outcomes(free)
    assert not held.is_done
    assert [call.contended for call in script.calls] == [set(), {HELD, FREE}]


def test_wallet_stays_contended_until_its_lock_is_acquired(
    script: Script,
) -> None:
    committer = Committer(LEDGER)
    script.steps = [defer_if_held]
    timed_out = pending_work(HELD)
    assert committer.run([timed_out]) == [timed_out]
    held, free = pending_work(HELD), pending_work(FREE)
    assert committer.run([held, free]) == [held]
    script.steps = [RefusalOfCommand]
    assert committer.run([held]) == []
    assert_own_outcomes(held)
    assert committer.run([pending_work(HELD)]) == []
    assert [call.contended for call in script.calls] == [set(), {HELD}, {HELD}, set()]


def test_lost_connection_repeats_the_commands_to_find_committed_ones(
    script: Script,
) -> None:
    script.steps = [connection_lost(), connection_lost(), RefusalOfCommand]
    pending = [pending_work() for _ in range(3)]
    assert run(*pending) == []
    assert_own_outcomes(*pending)
    assert [call.commands for call in script.calls] == [[work.item for work in pending]] * 3
    assert [call.is_recovering for call in script.calls] == [False, True, True]


def test_command_past_its_deadline_is_in_doubt_after_a_lost_connection(
    script: Script,
) -> None:
    late, in_time = pending_work(), pending_work()

    def lose_connection(command: Command) -> db.Error:
        late.deadline = 0
        return connection_lost()

    script.steps = [lose_connection, RefusalOfCommand]
    assert run(late, in_time) == []
    assert_own_outcomes(in_time)
    with pytest.raises(Unavailable):
        late.wait()
    assert [call.commands for call in script.calls] == [[late.item, in_time.item], [in_time.item]]


def test_command_in_doubt_stays_in_doubt_while_its_wallet_is_locked(script: Script) -> None:
    script.steps = [connection_lost(), defer_if_held]
    held = pending_work(HELD)
    assert run(held) == [held]
    assert run(held) == [held]
    assert [call.is_recovering for call in script.calls] == [False, True, True]
    held.deadline = 0
    with pytest.raises(Unavailable):
        held.wait()


def test_commands_stay_in_doubt_after_their_batch_fails(script: Script) -> None:
    script.steps = [connection_lost(), violation(), RefusalOfCommand]
    pending = [pending_work() for _ in range(2)]
    assert run(*pending) == []
    assert_own_outcomes(*pending)
    assert [call.is_recovering for call in script.calls] == [False, True, True, True]


def test_command_without_a_connection_is_not_in_doubt(script: Script) -> None:
    script.steps = [no_connection(), defer_if_held]
    held = pending_work(HELD)
    assert run(held) == [held]
    held.deadline = 0
    with pytest.raises(TooManyRequests):
        held.wait()


# --- With PostgreSQL --------------------------------------------------------------------------------
@pytest.fixture
def wallet_id() -> UUID:
    return open_wallet(Opening(currency="RUB")).wallet.id


@pytest.mark.parametrize("key", [None, "key"])
def test_commit_in_doubt_is_found_and_answered_as_the_first(wallet_id: UUID, key: str | None) -> None:
    command = Deposit(wallet_id=wallet_id, amount=Decimal(1), key=key)
    (first,) = execute([command], using=LEDGER)
    doubtful = PendingWork(command, LONG_TIMEOUT_SECONDS)
    doubtful.is_in_doubt = True
    assert run(doubtful) == []
    assert doubtful.wait() == first
    assert isinstance(first, Posted)
    assert not first.replayed
    assert Operation.objects.filter(wallet_id=wallet_id).count() == 1


def test_rejection_in_doubt_is_found(wallet_id: UUID) -> None:
    command = Withdraw(wallet_id=wallet_id, amount=Decimal(1))
    execute([command], using=LEDGER)
    doubtful = PendingWork(command, LONG_TIMEOUT_SECONDS)
    doubtful.is_in_doubt = True
    run(doubtful)
    outcome = doubtful.wait()
    assert isinstance(outcome, InsufficientFunds)
    assert (outcome.operation_id, outcome.replayed) == (command.id, False)
    assert Operation.objects.filter(wallet_id=wallet_id).count() == 1


def test_commit_in_doubt_that_failed_is_repeated(wallet_id: UUID) -> None:
    doubtful = pending_work(wallet_id)
    doubtful.is_in_doubt = True
    run(doubtful)
    assert isinstance(doubtful.wait(), Posted)
    assert Operation.objects.filter(wallet_id=wallet_id).count() == 1


def test_terminated_connection_is_replaced(wallet_id: UUID) -> None:
    run(pending_work(wallet_id))
    with db.connections[LEDGER].cursor() as cursor, pytest.raises(db.OperationalError):
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    after = pending_work(wallet_id)
    run(after)
    assert isinstance(after.wait(), Posted)
    assert Operation.objects.filter(wallet_id=wallet_id).count() == 2


@contextmanager
def locked_by_another_transaction(wallet_id: UUID) -> Iterator[None]:
    with psycopg.connect(cluster.url()) as connection:
        connection.execute("SELECT 1 FROM wallet WHERE id = %s FOR UPDATE", [wallet_id])
        yield
        connection.rollback()


def test_locked_wallet_is_deferred_and_the_others_are_served(wallet_id: UUID) -> None:
    other = open_wallet(Opening(currency="RUB")).wallet.id
    held, free = pending_work(wallet_id), pending_work(other)
    with locked_by_another_transaction(wallet_id):
        assert run(held, free) == [held]
        assert isinstance(free.wait(), Posted)
        assert run(held) == [held]
    assert run(held) == []
    assert isinstance(held.wait(), Posted)


@pytest.mark.parametrize("group_commit", [True, False])
def test_wallet_locked_past_the_deadline_is_refused_and_unchanged(
    wallet_id: UUID, settings: Settings, monkeypatch: pytest.MonkeyPatch, group_commit: bool
) -> None:
    settings.GROUP_COMMIT = group_commit
    settings.OPERATION_DEADLINE = 1
    batcher = Batcher("test", Committer(LEDGER).run, max_batch_size=10, queue_limit=10, timeout_seconds=1)
    monkeypatch.setattr(module, "batcher", lambda: batcher)
    with locked_by_another_transaction(wallet_id), pytest.raises(TooManyRequests):
        submit(Deposit(wallet_id=wallet_id, amount=Decimal(1)))
    assert not Operation.objects.filter(wallet_id=wallet_id).exists()
