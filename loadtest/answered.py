"""The answered operations of a load, by wallet, for a comparison with the ledger."""

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Self

MAX_CENTS = 10_000  # cents


class AnsweredOperations:
    """Counts and sums of the answered operations. Amounts are in cents, so that sums are exact."""

    def __init__(self) -> None:
        self.operations: dict[str, int] = defaultdict(int)
        self.cents: dict[str, int] = defaultdict(int)
        self._spendable_cents: dict[str, int] = defaultdict(int)

    def next_amount(self, wallet_id: str) -> int:
        """Return a random amount in cents to deposit, or a negative one to withdraw.

        A withdrawal takes only money that this process has deposited, so none is refused even if several
        processes share the wallet.
        """
        amount = random.randint(1, MAX_CENTS)
        if self._spendable_cents[wallet_id] < amount or random.getrandbits(1):
            return amount
        self._spendable_cents[wallet_id] -= amount
        return -amount

    def add(self, wallet_id: str, cents: int) -> None:
        self.operations[wallet_id] += 1
        self.cents[wallet_id] += cents
        self._spendable_cents[wallet_id] += max(0, cents)

    def save(self, file: Path) -> None:
        file.write_text(json.dumps([self.operations, self.cents]))

    @classmethod
    def load(cls, files: Iterable[Path]) -> Self:
        """Return the sum of the files of several processes."""
        total = cls()
        for file in files:
            operations, cents = json.loads(file.read_text())
            for wallet_id, count in operations.items():
                total.operations[wallet_id] += count
                total.cents[wallet_id] += cents[wallet_id]
        return total
