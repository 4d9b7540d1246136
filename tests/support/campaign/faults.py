"""The faults of the campaign. Each fault begins, describes itself, lasts for a while and is repaired."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import psycopg

from local.postgres import APPLICATION
from tests.support.campaign.nodes import can_mount
from tests.support.campaign.system import Part, System, faking_library
from tests.support.faults.proxy import Loss

Work = Callable[[System, random.Random], AbstractContextManager[str]]


@dataclass(frozen=True)
class Fault:
    """A fault. Faults of one lane happen in sequence; `lasts` is the minimum and maximum in seconds."""

    name: str
    lane: str
    lasts: tuple[float, float]
    work: Work
    is_possible: Callable[[], object]


FAULTS: Final[dict[str, Fault]] = {}


def fault(
    lane: str, *lasts: float, needs: Callable[[], object] = lambda: True
) -> Callable[[Callable[[System, random.Random], Iterator[str]]], Work]:
    def add(work: Callable[[System, random.Random], Iterator[str]]) -> Work:
        managed = contextmanager(work)
        FAULTS[work.__name__] = Fault(work.__name__, lane, (lasts[0], lasts[-1]), managed, needs)
        return managed

    return add


# --- The service ------------------------------------------------------------------------------------
@fault("service", 0)
def worker_killed(system: System, dice: random.Random) -> Iterator[str]:
    victims = system.workers()[: dice.choice([1, 1, 2])]
    for victim in victims:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    yield f"{len(victims)} of {system.service.name}"


@fault("service", 0, 3)
def master_killed(system: System, dice: random.Random) -> Iterator[str]:
    with _killed(system.service):
        yield "its workers notice"


@fault("service", 0)
def reload(system: System, dice: random.Random) -> Iterator[str]:
    system.service.process.send_signal(signal.SIGHUP)
    yield "SIGHUP"


@fault("clock", 2, 10, needs=faking_library)
def clock_step(system: System, dice: random.Random) -> Iterator[str]:
    seconds = dice.choice([-1, 1]) * dice.choice([2, 90, 3600, 100_000])
    system.clock.step(seconds)
    yield f"{seconds:+,} s"
    system.clock.step(0)


@fault("relay", 0, 4)
def relay_killed(system: System, dice: random.Random) -> Iterator[str]:
    with _killed(system.relay):
        yield system.relay.name


@fault("inbox", 0, 4)
def inbox_killed(system: System, dice: random.Random) -> Iterator[str]:
    inbox = dice.choice(system.inboxes)
    with _killed(inbox):
        yield inbox.name


@contextmanager
def _killed(part: Part) -> Iterator[None]:
    part.kill()
    try:
        yield
    finally:
        part.start()


# --- The connections between service and database ---------------------------------------------------
@fault("network", 0, 8)
def connections_cut(system: System, dice: random.Random) -> Iterator[str]:
    system.proxy.is_closed = True
    system.proxy.cut()
    yield "all of them, and no new ones"
    system.proxy.is_closed = False


@fault("network", 2, 8)
def connections_delayed(system: System, dice: random.Random) -> Iterator[str]:
    system.proxy.delay = dice.choice([0.002, 0.02, 0.1])
    yield f"{system.proxy.delay * 1000:.0f} ms a message"
    system.proxy.delay = 0


@fault("network", 0.2, 8)
def connections_stalled(system: System, dice: random.Random) -> Iterator[str]:
    system.proxy.stall()
    yield "what is said arrives afterwards"
    system.proxy.flow()


@fault("network", 5, 10)
def connections_half_open(system: System, dice: random.Random) -> Iterator[str]:
    links = system.proxy.silence()
    yield f"{len(links)} of them; new ones work"
    for link in links:
        link.cut()  # as the kernel's keepalive does


@fault("network", 1)
def commits_lost(system: System, dice: random.Random) -> Iterator[str]:
    losses = dice.choices(list(Loss), k=3)
    system.proxy.lose(*losses)
    yield ", ".join(loss.name.lower() for loss in losses)


# --- The database -----------------------------------------------------------------------------------
@fault("database", 0)
def backend_killed(system: System, dice: random.Random) -> Iterator[str]:
    backends = system.pair.primary.backends(APPLICATION)
    if backends:
        with suppress(ProcessLookupError):
            os.kill(dice.choice(backends), signal.SIGKILL)
    yield "so that all restart"
    system.pair.primary.ensure_started()


@fault("database", 0, 8)
def postmaster_killed(system: System, dice: random.Random) -> Iterator[str]:
    system.pair.primary.crash()
    yield system.pair.primary.name
    system.pair.primary.ensure_started()


@fault("database", 0.5, 9)
def database_frozen(system: System, dice: random.Random) -> Iterator[str]:
    with system.pair.primary.frozen():
        yield system.pair.primary.name


@fault("database", 0.5, 8)
def standby_killed(system: System, dice: random.Random) -> Iterator[str]:
    system.pair.standby.crash()
    yield "no commit ends without it"
    system.pair.standby.ensure_started()


@fault("database", 1, 5, needs=can_mount)
def disk_full(system: System, dice: random.Random) -> Iterator[str]:
    primary = system.pair.primary
    primary.disk.fill()
    yield primary.name
    primary.disk.free()
    primary.ensure_started()


@fault("database", 1, 5, needs=can_mount)
def log_full(system: System, dice: random.Random) -> Iterator[str]:
    """Leave no space for a new log segment: PostgreSQL panics and cannot recover until there is space."""
    primary = system.pair.primary
    with suppress(psycopg.Error), primary.connect(seconds=10) as connection:
        for _ in range(5):  # a segment may have been allocated in advance
            primary.disk.fill()
            connection.execute("SELECT pg_switch_wal()")
            connection.execute("SELECT pg_logical_emit_message(true, 'campaign', '')")
    yield primary.name
    primary.disk.free()
    primary.ensure_started()


@fault("database", 0)
def failover(system: System, dice: random.Random) -> Iterator[str]:
    system.pair.wait_for_standby()
    system.fail_over(seconds=dice.choice([0, 1, 4]))
    yield f"to {system.pair.primary.name}"
