"""What a load has moved: every answered operation, wallet by wallet, to be compared with the ledger."""

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Self

LARGEST = 10_000  # cents


class Tally:
    """Counts and sums of what was answered. Amounts are in cents, so that sums are exact."""

    def __init__(self) -> None:
        self.operations: dict[str, int] = defaultdict(int)
        self.cents: dict[str, int] = defaultdict(int)
        self._to_spend: dict[str, int] = defaultdict(int)

    def next_amount(self, wallet_id: str) -> int:
        """Cents to deposit, or (less than zero) to withdraw of what this process was seen to deposit.

        So no withdrawal is ever refused, however many processes share the wallet.
        """
        amount = random.randint(1, LARGEST)
        if self._to_spend[wallet_id] < amount or random.getrandbits(1):
            return amount
        self._to_spend[wallet_id] -= amount
        return -amount

    def add(self, wallet_id: str, cents: int) -> None:
        self.operations[wallet_id] += 1
        self.cents[wallet_id] += cents
        self._to_spend[wallet_id] += max(0, cents)

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
