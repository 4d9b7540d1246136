"""The violations that a check finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Rule = Literal[
    "another answer",  # a replay has another response, or is not marked as a replay
    "applied twice",
    "balance",  # it does not follow from the previous balance
    "half a bulk",
    "half a transfer",
    "id of two operations",
    "holds",  # they differ from their history
    "impossible read",  # of a state that never existed
    "key of two bulks",
    "lost",
    "unrequested",
    "not as answered",
    "order",  # contradicts real time
    "order of acceptance",
    "refused, but applied",
    "server error",
    "stale read",
    "time",  # the times of a wallet do not increase
    "verdict",  # contradicts the rules
    "wallet",  # it differs from its history
    "wrong refusal",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A violated rule: its name, the wallet, and the calls or operations that show it."""

    rule: Rule
    wallet_id: str
    detail: str
    concerns: Sequence[object] = ()

    def __str__(self) -> str:
        return "\n    ".join(
            [f"{self.rule}: wallet {self.wallet_id}: {self.detail}", *map(str, self.concerns)]
        )


class Findings(list[Violation]):
    def add(self, rule: Rule, wallet_id: str, detail: str, *concerns: object) -> None:
        self.append(Violation(rule=rule, wallet_id=wallet_id, detail=detail, concerns=concerns))
