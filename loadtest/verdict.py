"""Judges a load: the responses of the clients, and a comparison with the ledger."""

import json
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from loadtest.answered import AnsweredOperations
from loadtest.profiles import Profile
from loadtest.report import Check

MIN_ACHIEVED_RATE = 0.95  # of the rate that the profile names
RESPONSE_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Answers:
    """Locust's statistics of all requests together. Times are in milliseconds."""

    requests: int
    failures: int
    times: dict[int, int]  # number of responses by milliseconds

    @classmethod
    def load(cls, file: Path) -> Self:
        entries: list[dict[str, Any]] = json.loads(file.read_text())
        times: dict[int, int] = {}
        for entry in entries:
            for time, count in entry["response_times"].items():
                times[int(time)] = times.get(int(time), 0) + count
        return cls(
            requests=sum(entry["num_requests"] for entry in entries),
            failures=sum(entry["num_failures"] for entry in entries),
            times=times,
        )

    def percentile(self, share: float) -> int:
        remaining = sum(self.times.values()) * share
        for time, count in sorted(self.times.items()):
            remaining -= count
            if remaining <= 0:
                return time
        return 0


def verdict(profile: Profile, answers: Answers) -> list[Check]:
    return [
        Check("failures", answers.failures, at_most=0),
        Check("p99, ms", answers.percentile(0.99), at_most=profile.p99),
        Check("share of the rate achieved", answers.requests / profile.requests, at_least=MIN_ACHIEVED_RATE),
    ]


# --- Comparison with the ledger ---------------------------------------------------------------------
def differences(answered: AnsweredOperations, wallets: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the differences of answered and stored operations. `wallets` are response bodies of the API."""
    stored = {wallet["id"]: wallet for wallet in wallets}
    for wallet_id, operations in answered.operations.items():
        if wallet_id not in stored:
            yield f"{wallet_id}: {operations} operations answered, but there is no such wallet"
            continue
        wallet, balance = stored[wallet_id], Decimal(answered.cents[wallet_id]) / 100
        if wallet["sequence"] != operations:
            yield f"{wallet_id}: {operations} operations answered, {wallet['sequence']} stored"
        if Decimal(wallet["balance"]) != balance:
            yield f"{wallet_id}: a balance of {balance} answered, {wallet['balance']} stored"


def fetch_wallets(host: str, wallet_ids: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the wallets, from the newest on: they were opened just before the load."""
    missing, cursor = set(wallet_ids), ""
    while missing:
        page = _get(f"{host}/api/v1/wallets?limit=500{cursor and f'&cursor={cursor}'}")
        for wallet in page["items"]:
            if wallet["id"] in missing:
                missing.remove(wallet["id"])
                yield wallet
        if page["nextCursor"] is None:
            return
        cursor = page["nextCursor"]


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=RESPONSE_TIMEOUT_SECONDS) as response:  # noqa: S310
        return json.load(response)
