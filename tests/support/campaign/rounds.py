"""One round: a system, load, faults, and the verdict on what is left when all is over."""

import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

import psycopg

from local import LocalError
from local.files import write
from local.postgres import SUPERUSER
from tests.support.campaign import events
from tests.support.campaign.adversary import Adversary, Happened, SequentialAdversary, plan, plan_each
from tests.support.campaign.nodes import wait_until
from tests.support.campaign.system import System
from tests.support.histories import ledger
from tests.support.histories.checker import check
from tests.support.histories.journal import History
from tests.support.histories.load import Load

CARRIED_OUT: Final = (200, 201, 409)
LIMIT: Final = 600  # seconds for everything but the load: then something hangs

AdversaryOf = Callable[[System], Adversary | SequentialAdversary]


@dataclass(frozen=True)
class Size:
    """How much a round is."""

    seconds: float = 50  # in which faults begin
    rate: float = 200  # requests a second
    clients: int = 40


@dataclass
class Result:
    """What happened in the round of this seed."""

    seed: int
    happened: list[Happened] = field(default_factory=list)
    operations: int = 0  # that are in the ledger
    events: int = 0  # that the receiver got
    answers: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)  # of processes, by themselves
    violations: list[str] = field(default_factory=list)
    kept: Path | None = None  # where a round that failed can be looked at


def run(seed: int, size: Size, names: Collection[str] = ()) -> Result:
    """A round with the choices of this seed; of the faults with these names, or of all."""
    planned = plan(seed, size.seconds, names)
    return _run(seed, size, lambda system: Adversary(system, planned))


def run_each(seed: int, size: Size, check_recovery: Callable[[System], None]) -> Result:
    """A round of every possible fault once, one after the other.

    `check_recovery` is called after each fault, under load. If it raises, the round ends and the result names
    the fault. `size.seconds` only bounds the round.
    """
    return _run(seed, size, lambda system: SequentialAdversary(system, plan_each(seed), check_recovery))


def _run(seed: int, size: Size, adversary_of: AdversaryOf) -> Result:
    folder = Path(tempfile.mkdtemp(prefix="walletsvc-campaign-"))
    folder.chmod(0o755)  # PostgreSQL runs as another user
    result = Result(seed)
    try:
        with _no_longer_than(size.seconds + LIMIT):
            _break_and_check(folder, size, adversary_of, result)
    finally:
        if not result.kept:
            shutil.rmtree(folder, ignore_errors=True)
    return result


def _break_and_check(folder: Path, size: Size, adversary_of: AdversaryOf, result: Result) -> None:
    with System(folder) as system:
        adversary = adversary_of(system)
        result.happened = adversary.happened
        try:
            with Load(system.address, result.seed, size.rate, size.clients) as load:
                adversary.run()
                system.settle()
                _wait_until_it_goes_on(load, size.clients)
        except (LocalError, psycopg.Error) as error:
            result.violations = [f"not up again: {error}"]
        else:
            result.violations = _verdict(system, load.history, result)
        result.answers = Counter(str(call.outcome) for call in load.history)
        result.deaths = Counter({part.name: part.deaths for part in system.parts if part.deaths})
        if result.violations:
            _keep(system, load.history, result)


def _wait_until_it_goes_on(load: Load, clients: int) -> None:
    """As many requests carried out as there are clients, of those that are sent when all is up again."""
    since = time.monotonic()
    wait_until(
        lambda: sum(load.outcomes(since)[status] for status in CARRIED_OUT) >= clients,
        "it is up, and carries out next to nothing",
    )


def _verdict(system: System, history: History, result: Result) -> list[str]:
    """All that is wrong, in words."""
    try:
        wait_until(lambda: not waiting(system), "the inbox is not empty")
    except LocalError as error:
        return [str(error)]
    committed = ledger.read(system.pair.primary.cluster.url(SUPERUSER), history.wallet_ids)
    result.operations = len(committed.operations)
    found = [
        *_of_the_command(system),
        *events.violations(committed, system.receiver, system.look_after),
        *map(str, check(history, committed)),
    ]
    result.events = len(system.receiver.events)
    return found


def waiting(system: System) -> int:
    """How much is in the inbox."""
    system.look_after()
    entries: int = system.pair.primary.ask("SELECT count(*) FROM inbox")[0][0]
    return entries


def _of_the_command(system: System) -> list[str]:
    try:
        system.manage("verify_ledger")
    except LocalError as error:
        return str(error).splitlines()
    return []


def _keep(system: System, history: History, result: Result) -> None:
    result.kept = system.folder
    write(system.folder / "journal", "\n".join(map(str, history)))
    write(system.folder / "events", "\n".join(map(str, system.receiver.requests)))
    write(system.folder / "violations", "\n".join(result.violations))
    write(system.folder / "faults", "\n".join(map(str, result.happened)))
    (system.folder / "kept").mkdir()
    system.pair.keep(system.folder / "kept")


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """The last resort, where one of the bounded waits is not: the main thread is told."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise LocalError(f"the round has not ended after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
