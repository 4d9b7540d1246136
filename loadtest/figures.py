"""The figures of a benchmark run, and their required bounds."""

import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any, Final

from loadtest import report
from loadtest.report import Check, ratio
from loadtest.verification import Verification
from loadtest.wrk import Result

MIN_VERIFIED_OPERATIONS: Final = 500_000


@dataclass
class Figures:
    results: dict[str, list[Result]] = field(default_factory=lambda: defaultdict(list))
    memory: list[tuple[int, float]] = field(
        default_factory=list
    )  # operations until then, MB of the largest worker
    others: list[float] = field(default_factory=list)  # share of the cores that other work took, by round
    database_connections: int = 0  # maximum during the row `crowd`
    big_ledger_ms: tuple[float, float] | None = None  # for the newest page, and for the balance at a time
    verified: list[Verification] = field(default_factory=list)

    def checks(self) -> list[Check]:
        """Return the checks of all figures that were measured."""
        return [
            *self._ratios(),
            *self._stale(),
            *self._bulk(),
            *self._slow_disk(),
            *self._delay(),
            *self._big_ledger(),
            *self._memory(),
            *self._crowd(),
            *self._verified(),
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": {name: [asdict(result) for result in results] for name, results in self.results.items()},
            "memory": self.memory,
            "others": self.others,
            "database_connections": self.database_connections,
            "big_ledger_ms": self.big_ledger_ms,
            "verified": [asdict(each) for each in self.verified],
            "checks": [asdict(check) | {"met": check.is_met} for check in self.checks()],
        }

    def tables(self, titles: dict[str, str]) -> str:
        rows = [report.result_row(titles[name], results) for name, results in self.results.items()]
        checks = [report.check_row(check) for check in self.checks()]
        return f"{report.table(report.RESULT_HEAD, rows)}\n\n{report.table(report.CHECK_HEAD, checks)}"

    def _ratios(self) -> Iterator[Check]:
        yield from self._ratio("hot", "naive", at_least=9, aim=12)
        yield from self._ratio("hot", "bare", at_least=0.6, aim=0.75)
        yield from self._ratio("hot", "unmetered", at_least=0.97)
        yield from self._ratio("hot", "unchained", at_least=0.95)
        yield from self._ratio("keys", "hot", at_least=0.85)
        yield from self._ratio("relay", "hot", at_least=1)
        yield from self._ratio("key", "hot", at_least=0.95)
        yield from self._ratio("spread", "hot", at_least=0.9, at_most=1.1)
        yield from self._ratio("slow-disk", "hot", aim=0.9)
        yield from self._ratio("big-ledger", "empty-ledger", at_least=0.95)
        yield from self._ratio("get", "get-bare", at_least=0.75, aim=0.85)
        yield from self._ratio("get", "get-query", at_least=2.5)
        yield from self._ratio("get", "get-redis", at_least=1)
        yield from self._ratio("get", "get-redis-raw", aim=1)
        yield from self._ratio("get-spread", "get-spread-redis", at_least=1)
        yield from self._ratio("get-written", "get-written-redis", at_least=1)
        yield from self._ratio("lone", "lone-naive", "p50", at_most=1)
        yield from self._ratio("attack", "calm", "p50", at_most=1.5)

    def _ratio(self, above: str, below: str, figure: str = "rate", **bounds: float) -> Iterator[Check]:
        if above in self.results and below in self.results:
            one, other = ([getattr(result, figure) for result in self.results[row]] for row in (above, below))
            name = f"{above} / {below}" + ("" if figure == "rate" else f", {figure}")
            yield ratio(name, one, other, **bounds)

    def _stale(self) -> Iterator[Check]:
        for row, max_stale in (("get-written", 0), ("get-written-redis", inf)):
            if results := self.results.get(row):
                reads = sum(result.checked_reads for result in results)
                stale = sum(result.stale for result in results)
                yield Check(f"{row}: stale of {reads:,} reads", stale, at_most=max_stale)

    def _bulk(self) -> Iterator[Check]:
        if results := self.results.get("bulk"):
            rate = statistics.median(result.rate for result in results)
            yield Check("bulk: operations a second", rate, at_least=20_000, aim=30_000)

    def _delay(self) -> Iterator[Check]:
        if results := self.results.get("relay-delay"):
            p99 = statistics.median(result.p99 for result in results)
            yield Check("delivery at 1,000 a second: p99 ms after the operation", p99, at_most=250)

    def _slow_disk(self) -> Iterator[Check]:
        if results := self.results.get("slow-disk"):
            rate = statistics.median(result.rate for result in results)
            yield Check("slow disk: operations a second", rate, at_least=1500)

    def _big_ledger(self) -> Iterator[Check]:
        if self.big_ledger_ms:
            page, balance = self.big_ledger_ms
            yield Check("big ledger: newest page, ms", page, at_most=5)
            yield Check("big ledger: balance at a time, ms", balance, at_most=5)

    def _verified(self) -> Iterator[Check]:
        """Check only large ledgers: in a small one, the start of the command dominates."""
        for each in self.verified:
            if each.operations >= MIN_VERIFIED_OPERATIONS:
                name = f"{each.operations:,} operations verified, a second on one core"
                yield Check(name, each.rate, at_least=100_000)

    def _memory(self) -> Iterator[Check]:
        if self.memory:
            operations, last = self.memory[-1]
            half = next(megabytes for done, megabytes in self.memory if done >= operations / 2)
            yield Check(f"MB of a worker after {operations:,} operations", last, at_most=120)
            yield Check("MB of growth in the second half", last - half, at_most=2)

    def _crowd(self) -> Iterator[Check]:
        for result in self.results.get("crowd", []):
            yield Check("1,000 connections: failures", result.failures, at_most=0)
            yield Check("1,000 connections: slowest, ms", result.slowest, at_most=3000, aim=1500)
            yield Check("1,000 connections: database connections", self.database_connections, at_most=20)
