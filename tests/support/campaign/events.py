"""What the receiver was told against the ledger: everything at least once, each wallet's in its order."""

import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from itertools import zip_longest

from tests.support.campaign.nodes import PATIENCE
from tests.support.histories.ledger import Change, Ledger, Operation
from tests.support.receivers import Receiver

ALONGSIDE = ("balance", "captured")  # events of an operation that has told another one of itself before
EXPIRED = ":expired"

Told = dict[str, list[str]]  # of each wallet, the ids of its events


def violations(committed: Ledger, receiver: Receiver, look_after: Callable[[], None]) -> list[str]:
    """When the relay has caught up, or PATIENCE is over."""
    wanted = expected(committed)
    deadline = time.monotonic() + PATIENCE
    while missing(wanted, told := told_to(receiver)) and time.monotonic() < deadline:
        look_after()
        time.sleep(0.5)
    return [
        f"event: wallet {wallet_id}: {first_difference(ids, told.get(wallet_id, []))}"
        for wallet_id, ids in wanted.items()
        if not _is_told(ids, told.get(wallet_id, []))
    ]


def _is_told(wanted: list[str], told: list[str]) -> bool:
    """All of it in its order, and nothing else but holds that have expired since the ledger was read."""
    return told[: len(wanted)] == wanted and all(id.endswith(EXPIRED) for id in told[len(wanted) :])


def expected(committed: Ledger) -> Told:
    happened: list[Operation | Change] = [*committed.operations, *committed.changes]
    of: Told = defaultdict(list)
    for each in sorted(happened, key=_place):
        of[each.wallet_id].append(_id_of_change(each) if isinstance(each, Change) else _id_of(each))
    return dict(of)


def told_to(receiver: Receiver) -> Told:
    """In the order in which they came first: after a crash, some come again."""
    of: dict[str, dict[str, None]] = defaultdict(dict)
    for event in receiver.events:
        if not event["id"].endswith(ALONGSIDE):
            of[event["subject"]].setdefault(event["id"])
    return {wallet_id: list(ids) for wallet_id, ids in of.items()}


def missing(wanted: Told, told: Told) -> bool:
    return any(not set(told.get(wallet_id, [])).issuperset(ids) for wallet_id, ids in wanted.items())


def first_difference(wanted: list[str], told: list[str]) -> str:
    place, (want, got) = next(
        (place, pair) for place, pair in enumerate(zip_longest(wanted, told)) if pair[0] != pair[1]
    )
    return f"event {place + 1} of {len(wanted)} was to be {want}, and {got} came"


def _place(each: Operation | Change) -> tuple[datetime, str]:
    return each.created_at, each.id


def _id_of(operation: Operation) -> str:
    if operation.status == "REJECTED":
        return f"{operation.id}:rejected"
    return f"{operation.id}:{ {'HOLD': 'placed', 'VOID': 'voided'}.get(operation.type, 'completed') }"


def _id_of_change(change: Change) -> str:
    match change.type:
        case "OPENED":
            return f"{change.id}:opened"
        case "HOLD_EXPIRED":
            return f"{change.changes['hold_id']}{EXPIRED}"
        case _:
            return f"{change.id}:changed"
