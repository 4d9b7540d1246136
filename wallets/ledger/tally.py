"""What became of the commands of a batch, for the metrics: counted once a batch."""

from collections import Counter
from collections.abc import Iterable
from typing import Final, cast

from wallets.ledger.commands import AtomicBulk, Work
from wallets.ledger.decisions import Outcome, Posted
from wallets.ledger.execute import Answer, Deferred
from wallets.observability import metrics
from wallets.observability.metrics import Kind

REPLAYED: Final = "REPLAYED"
REJECTED: Final = "REJECTED"  # recorded
REFUSED: Final = "REFUSED"  # nothing is left of it
TOGETHER: Final = "TOGETHER"  # those that are carried out all or none, where it was none: they count as one


def count(done: Iterable[tuple[Work, Answer | Deferred]]) -> None:
    kinds: list[Kind] = []
    for work, answer in done:
        if isinstance(answer, Outcome):
            kinds.append(_kind(TOGETHER if isinstance(work, AtomicBulk) else work.operation_type, answer))
        elif isinstance(answer, list):
            commands = cast(AtomicBulk, work).commands
            kinds += [
                _kind(command.operation_type, outcome)
                for command, outcome in zip(commands, answer, strict=True)
            ]
    metrics.count_operations(Counter(kinds))


def _kind(type: str, outcome: Outcome) -> Kind:
    if outcome.replayed:
        return type, REPLAYED, ""
    if isinstance(outcome, Posted):
        return type, outcome.operation.status, ""
    return type, REJECTED if outcome.operation_id else REFUSED, outcome.code
