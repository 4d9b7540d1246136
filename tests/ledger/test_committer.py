"""Every command is settled once, whatever the database does to the batch that it is in."""

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

LONG = 60.0
HELD, FREE = uuid4(), uuid4()


def ticket(wallet_id: UUID = FREE, patience: float = LONG) -> PendingWork:
    return PendingWork(Deposit(wallet_id=wallet_id, amount=Decimal(1)), patience)


def failure(kind: type[db.Error], cause: psycopg.Error) -> db.Error:
    """As Django raises what psycopg has raised."""
    error = kind(str(cause))
    error.__cause__ = cause
    return error


def lost() -> db.Error:
    return failure(db.OperationalError, psycopg.OperationalError("the connection is lost"))


def lock_timeout() -> db.Error:
    return failure(db.OperationalError, postgres.LockNotAvailable("lock timeout"))


def no_connection() -> db.Error:
    return failure(db.OperationalError, PoolTimeout("no connection in time"))


def violation() -> db.Error:
    return failure(db.IntegrityError, postgres.CheckViolation("a check"))


# --- Against a database that does what it is told ---------------------------------------------------
class Call:
    """What `execute` was asked for."""

    def __init__(self, commands: Sequence[Command], contended: Collection[UUID], is_recovering: bool) -> None:
        self.commands = list(commands)
        self.contended = set(contended)
        self.is_recovering = is_recovering


Step = db.Error | Callable[[Command], Outcome | Deferred | db.Error]


class Script:
    """Instead of `execute`: one step a call, the last one for ever."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.calls: list[Call] = []

    def __call__(
        self, commands: Sequence[Command], *, using: str, contended: Collection[UUID], is_recovering: bool
    ) -> list[Outcome | Deferred]:
        self.calls.append(Call(commands, contended, is_recovering))
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


class Told(InsufficientFunds):
    """An outcome, of this command."""

    def __init__(self, command: Command) -> None:
        super().__init__()
        self.operation_id = command.id


def busy_if_held(command: Command) -> Outcome | Deferred:
    return DEFERRED if command.wallet_id == HELD else Told(command)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    monkeypatch.setattr(module, "execute", script)
    monkeypatch.setattr(database_retry, "RECONNECT_PAUSE_SECONDS", 0)
    return script


def run(*tickets: PendingWork) -> list[PendingWork]:
    return Committer(LEDGER).run(tickets)


def assert_told(*tickets: PendingWork) -> None:
    """Each has the outcome of its own command."""
    for given in tickets:
        outcome = given.wait()
        assert isinstance(outcome, Told)
        assert isinstance(given.item, Command)
        assert outcome.operation_id == given.item.id


def test_all_tickets_are_settled_by_one_call(script: Script) -> None:
    script.steps = [Told]
    tickets = [ticket() for _ in range(3)]
    assert run(*tickets) == []
    assert_told(*tickets)
    assert [call.commands for call in script.calls] == [[given.item for given in tickets]]
    assert not script.calls[0].is_recovering
    assert not script.calls[0].contended


def test_what_was_given_up_is_not_carried_out(script: Script) -> None:
    script.steps = [Told]
    gone, stays = ticket(patience=0), ticket()
    run(gone, stays)
    assert [call.commands for call in script.calls] == [[stays.item]]
    assert not gone.is_done


def test_in_a_batch_that_fails_only_the_guilty_one_fails(script: Script) -> None:
    guilty, *innocent = [ticket() for _ in range(3)]

    def outcome(command: Command) -> Outcome | db.Error:
        return violation() if command is guilty.item else Told(command)

    script.steps = [outcome]
    assert run(innocent[0], guilty, innocent[1]) == []
    assert_told(*innocent)
    with pytest.raises(db.IntegrityError):
        guilty.wait()
    assert [len(call.commands) for call in script.calls] == [3, 1, 1, 1]


def test_a_lock_that_is_not_to_be_had_is_waited_for_once_and_holds_up_nobody_else(script: Script) -> None:
    script.steps = [lock_timeout(), busy_if_held]
    held, free = ticket(HELD), ticket(FREE)
    assert run(held, free) == [held]
    assert_told(free)
    assert not held.is_done
    assert [call.contended for call in script.calls] == [set(), {HELD, FREE}]


def test_a_wallet_that_kept_somebody_waiting_is_not_waited_for_until_its_lock_was_to_be_had(
    script: Script,
) -> None:
    committer = Committer(LEDGER)
    script.steps = [busy_if_held]
    given_up = ticket(HELD)
    assert committer.run([given_up]) == [given_up]
    held, free = ticket(HELD), ticket(FREE)
    assert committer.run([held, free]) == [held]
    script.steps = [Told]
    assert committer.run([held]) == []
    assert_told(held)
    assert committer.run([ticket(HELD)]) == []
    assert [call.contended for call in script.calls] == [set(), {HELD}, {HELD}, set()]


def test_after_a_lost_connection_the_same_commands_run_again_to_find_what_was_committed(
    script: Script,
) -> None:
    script.steps = [lost(), lost(), Told]
    tickets = [ticket() for _ in range(3)]
    assert run(*tickets) == []
    assert_told(*tickets)
    assert [call.commands for call in script.calls] == [[given.item for given in tickets]] * 3
    assert [call.is_recovering for call in script.calls] == [False, True, True]


def test_who_has_no_time_left_when_the_connection_is_lost_is_told_that_it_is_not_known(
    script: Script,
) -> None:
    late, in_time = ticket(), ticket()

    def lose(command: Command) -> db.Error:
        late.deadline = 0
        return lost()

    script.steps = [lose, Told]
    assert run(late, in_time) == []
    assert_told(in_time)
    with pytest.raises(Unavailable):
        late.wait()
    assert [call.commands for call in script.calls] == [[late.item, in_time.item], [in_time.item]]


def test_doubt_stays_with_a_command_that_has_to_wait_for_its_wallet(script: Script) -> None:
    script.steps = [lost(), busy_if_held]
    held = ticket(HELD)
    assert run(held) == [held]
    assert run(held) == [held]
    assert [call.is_recovering for call in script.calls] == [False, True, True]
    held.deadline = 0
    with pytest.raises(Unavailable):
        held.wait()


def test_doubt_stays_with_the_commands_of_a_batch_that_fails(script: Script) -> None:
    script.steps = [lost(), violation(), Told]
    tickets = [ticket() for _ in range(2)]
    assert run(*tickets) == []
    assert_told(*tickets)
    assert [call.is_recovering for call in script.calls] == [False, True, True, True]


def test_without_a_connection_there_is_no_doubt(script: Script) -> None:
    script.steps = [no_connection(), busy_if_held]
    held = ticket(HELD)
    assert run(held) == [held]
    held.deadline = 0
    with pytest.raises(TooManyRequests):
        held.wait()


# --- Against PostgreSQL -----------------------------------------------------------------------------
@pytest.fixture
def wallet_id() -> UUID:
    return open_wallet(Opening(currency="RUB")).wallet.id


@pytest.mark.parametrize("key", [None, "key"])
def test_a_commit_in_doubt_is_found_and_its_answer_is_the_first(wallet_id: UUID, key: str | None) -> None:
    command = Deposit(wallet_id=wallet_id, amount=Decimal(1), key=key)
    (first,) = execute([command], using=LEDGER)
    doubtful = PendingWork(command, LONG)
    doubtful.is_in_doubt = True
    assert run(doubtful) == []
    assert doubtful.wait() == first
    assert isinstance(first, Posted)
    assert not first.replayed
    assert Operation.objects.filter(wallet_id=wallet_id).count() == 1


def test_a_rejection_in_doubt_is_found(wallet_id: UUID) -> None:
    command = Withdraw(wallet_id=wallet_id, amount=Decimal(1))
    execute([command], using=LEDGER)
    doubtful = PendingWork(command, LONG)
    doubtful.is_in_doubt = True
    run(doubtful)
    outcome = doubtful.wait()
    assert isinstance(outcome, InsufficientFunds)
    assert (outcome.operation_id, outcome.replayed) == (command.id, False)
    assert Operation.objects.filter(wallet_id=wallet_id).count() == 1


def test_a_commit_in_doubt_that_did_not_happen_happens_now(wallet_id: UUID) -> None:
    doubtful = ticket(wallet_id)
    doubtful.is_in_doubt = True
    run(doubtful)
    assert isinstance(doubtful.wait(), Posted)
    assert Operation.objects.filter(wallet_id=wallet_id).count() == 1


def test_a_connection_that_was_cut_is_made_again(wallet_id: UUID) -> None:
    run(ticket(wallet_id))
    with db.connections[LEDGER].cursor() as cursor, pytest.raises(db.OperationalError):
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    after = ticket(wallet_id)
    run(after)
    assert isinstance(after.wait(), Posted)
    assert Operation.objects.filter(wallet_id=wallet_id).count() == 2


@contextmanager
def held_by_somebody_else(wallet_id: UUID) -> Iterator[None]:
    with psycopg.connect(cluster.url()) as connection:
        connection.execute("SELECT 1 FROM wallet WHERE id = %s FOR UPDATE", [wallet_id])
        yield
        connection.rollback()


def test_a_held_wallet_comes_back_and_the_others_are_served(wallet_id: UUID) -> None:
    other = open_wallet(Opening(currency="RUB")).wallet.id
    held, free = ticket(wallet_id), ticket(other)
    with held_by_somebody_else(wallet_id):
        assert run(held, free) == [held]
        assert isinstance(free.wait(), Posted)
        assert run(held) == [held]
    assert run(held) == []
    assert isinstance(held.wait(), Posted)


@pytest.mark.parametrize("group_commit", [True, False])
def test_a_wallet_held_for_too_long_is_refused_with_nothing_applied(
    wallet_id: UUID, settings: Settings, monkeypatch: pytest.MonkeyPatch, group_commit: bool
) -> None:
    settings.GROUP_COMMIT = group_commit
    settings.OPERATION_DEADLINE = 1
    batcher = Batcher("test", Committer(LEDGER).run, max_batch_size=10, queue_limit=10, timeout_seconds=1)
    monkeypatch.setattr(module, "batcher", lambda: batcher)
    with held_by_somebody_else(wallet_id), pytest.raises(TooManyRequests):
        submit(Deposit(wallet_id=wallet_id, amount=Decimal(1)))
    assert not Operation.objects.filter(wallet_id=wallet_id).exists()
