"""What a check has found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Rule = Literal[
    "another answer",  # a repeat was answered otherwise, or as if it were new
    "applied twice",
    "balance",  # it does not follow from the one before
    "half a bulk",
    "half a transfer",
    "id of two operations",
    "holds",  # they are not as their history has them
    "impossible read",  # of a state that never was
    "key of two bulks",
    "lost",
    "nobody asked",
    "not as answered",
    "order",  # against real time
    "order of acceptance",
    "refused, but applied",
    "server error",
    "stale read",
    "time",  # a wallet's does not rise
    "verdict",  # the rules say otherwise
    "wallet",  # it is not as its history has it
    "wrong refusal",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A promise that was broken: which, where, and the calls, operations, ... that show it."""

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
