"""Which faults happen when: chosen before the round begins, by its seed alone."""

import random
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from local import LocalError
from tests.support.campaign.faults import FAULTS, Fault
from tests.support.campaign.system import System

FEWEST, MOST = 5, 10
LEAD: Final = 1.0  # seconds before the first
REST: Final = 2.0  # seconds between two of one lane: what comes back is up again, or just about
LOOK: Final = 0.1  # seconds between two looks after what has ended by itself
SHORT_SECONDS: Final = 2.0  # that a fault lasts at most in a round of each fault


@dataclass(frozen=True)
class Planned:
    fault: Fault
    at: float  # seconds since the beginning of the round
    lasts: float
    seed: int  # of what it chooses itself


@dataclass
class Happened:
    """One fault, as it was: times in seconds since the beginning of the round."""

    name: str
    began: float
    what: str = ""
    mended: float = 0.0

    def __str__(self) -> str:
        return f"{self.began:6.1f} s to {self.mended:5.1f} s  {self.name}: {self.what}"


def plan(seed: int, seconds: float, names: Collection[str] = ()) -> list[Planned]:
    """Plan a round of so many seconds with these faults, or all. Leaves out faults that cannot run here."""
    dice = random.Random(seed)  # noqa: S311
    deck = [fault for fault in FAULTS.values() if not names or fault.name in names]
    chosen = dice.sample(deck, min(len(deck), dice.randint(FEWEST, MOST)))
    times = sorted(dice.uniform(LEAD, seconds) for _ in chosen)
    planned = [
        Planned(fault, at, dice.uniform(*fault.lasts), dice.getrandbits(32))
        for fault, at in zip(chosen, times, strict=True)
    ]
    return [each for each in planned if each.fault.is_possible()]


def plan_each(seed: int) -> list[Planned]:
    """Every possible fault once, in the order of `FAULTS`, each for two seconds or less."""
    dice = random.Random(seed)  # noqa: S311
    return [
        Planned(fault, 0.0, min(fault.lasts[0], SHORT_SECONDS), dice.getrandbits(32))
        for fault in FAULTS.values()
        if fault.is_possible()
    ]


@dataclass
class _UnderWay:
    fault: Fault
    until: float
    happened: Happened
    stack: ExitStack


class Adversary:
    """Does to the system what was planned, one fault at a time in each lane."""

    def __init__(self, system: System, planned: Sequence[Planned]) -> None:
        self.happened: list[Happened] = []
        self._system = system
        self._waiting = list(planned)
        self._under_way: list[_UnderWay] = []
        self._free_from: dict[str, float] = {}  # of each lane; infinity while a fault is active

    def run(self) -> None:
        """Everything that was broken is mended afterwards, though perhaps not up yet."""
        self._began = time.monotonic()
        with ExitStack() as stack:
            stack.callback(self._mend_all)
            while self._waiting or self._under_way:
                self._mend_what_is_over()
                self._begin_what_is_due()
                self._system.look_after()
                time.sleep(LOOK)

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    def _begin_what_is_due(self) -> None:
        for planned in list(self._waiting):
            if max(planned.at, self._free_from.get(planned.fault.lane, 0)) <= self._now:
                self._waiting.remove(planned)
                self._begin(planned)

    def _begin(self, planned: Planned) -> None:
        happened = Happened(planned.fault.name, self._now)
        self.happened.append(happened)
        self._free_from[planned.fault.lane] = float("inf")
        stack = ExitStack()
        self._under_way.append(_UnderWay(planned.fault, self._now + planned.lasts, happened, stack))
        dice = random.Random(planned.seed)  # noqa: S311
        happened.what = stack.enter_context(planned.fault.work(self._system, dice))

    def _mend_what_is_over(self) -> None:
        for each in list(self._under_way):
            if each.until <= self._now:
                self._mend(each)

    def _mend(self, each: _UnderWay) -> None:
        self._under_way.remove(each)
        each.stack.close()
        each.happened.mended = self._now
        self._free_from[each.fault.lane] = self._now + REST

    def _mend_all(self) -> None:
        for each in list(self._under_way):
            self._mend(each)


class SequentialAdversary:
    """Does one planned fault at a time; the next one begins when the system has recovered."""

    def __init__(
        self, system: System, planned: Sequence[Planned], check_recovery: Callable[[System], None]
    ) -> None:
        self.happened: list[Happened] = []
        self._system = system
        self._planned = planned
        self._check_recovery = check_recovery

    def run(self) -> None:
        """Raises LocalError with the name of the first fault from which the system does not recover."""
        began = time.monotonic()
        for planned in self._planned:
            offset = time.monotonic() - began
            adversary = Adversary(self._system, [planned])
            try:
                adversary.run()
                self._system.settle()
                self._check_recovery(self._system)
            except Exception as error:
                raise LocalError(f"after {planned.fault.name}: {error!r}") from error
            finally:
                for happened in adversary.happened:
                    happened.began += offset
                    happened.mended += offset
                self.happened += adversary.happened
