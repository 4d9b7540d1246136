"""Compare the received events with the ledger: each event arrives at least once, in its wallet's order."""

import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from itertools import zip_longest

from tests.support.campaign.nodes import TIMEOUT_SECONDS
from tests.support.histories.ledger import Change, Ledger, Operation
from tests.support.receivers import Receiver

ALONGSIDE = ("balance", "captured")  # second events of an operation
EXPIRED = ":expired"

EventIds = dict[str, list[str]]  # by wallet


def violations(committed: Ledger, receiver: Receiver, look_after: Callable[[], None]) -> list[str]:
    """Wait until the relay has caught up or the time is over, then return the violations."""
    expected_ids = expected(committed)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while missing(expected_ids, received_ids := received_by(receiver)) and time.monotonic() < deadline:
        look_after()
        time.sleep(0.5)
    return [
        f"event: wallet {wallet_id}: {first_difference(ids, received_ids.get(wallet_id, []))}"
        for wallet_id, ids in expected_ids.items()
        if not _is_complete(ids, received_ids.get(wallet_id, []))
    ]


def _is_complete(expected_ids: list[str], received_ids: list[str]) -> bool:
    """Return whether all ids arrived in order; only later expiries of holds may follow."""
    return received_ids[: len(expected_ids)] == expected_ids and all(
        id.endswith(EXPIRED) for id in received_ids[len(expected_ids) :]
    )


def expected(committed: Ledger) -> EventIds:
    happened: list[Operation | Change] = [*committed.operations, *committed.changes]
    of: EventIds = defaultdict(list)
    for each in sorted(happened, key=_place):
        of[each.wallet_id].append(_id_of_change(each) if isinstance(each, Change) else _id_of(each))
    return dict(of)


def received_by(receiver: Receiver) -> EventIds:
    """Return the ids in the order of their first arrival; after a crash, some arrive again."""
    of: dict[str, dict[str, None]] = defaultdict(dict)
    for event in receiver.events:
        if not event["id"].endswith(ALONGSIDE):
            of[event["subject"]].setdefault(event["id"])
    return {wallet_id: list(ids) for wallet_id, ids in of.items()}


def missing(expected_ids: EventIds, received_ids: EventIds) -> bool:
    return any(
        not set(received_ids.get(wallet_id, [])).issuperset(ids) for wallet_id, ids in expected_ids.items()
    )


def first_difference(expected_ids: list[str], received_ids: list[str]) -> str:
    place, (want, got) = next(
        (place, pair)
        for place, pair in enumerate(zip_longest(expected_ids, received_ids))
        if pair[0] != pair[1]
    )
    return f"event {place + 1} of {len(expected_ids)} was to be {want}, and {got} came"


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
