"""The view of a bulk: many operations and transfers in one request."""

import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final, TypeVar

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from wallets import ledger
from wallets.access import rights
from wallets.access.authentication import principal
from wallets.api.endpoint import Endpoint, keyed
from wallets.api.examples import OTHER_WALLET_ID, WALLET_ID
from wallets.api.openapi import NEW_COMMAND, PREFER, TRANSFER_RULES, Declaration, first_refusal, key
from wallets.apps import give_back_connection
from wallets.contract.parsing import check, context_of, details_in, idempotency_key, read_object, wants_async
from wallets.contract.request_schemas import (
    MAX_BULK_ITEMS,
    MAX_BULK_KEY_LENGTH,
    BulkOperation,
    BulkToPost,
    BulkTransfer,
)
from wallets.contract.responses import REPLAYED, BulkBody, operation_body, transfer_body
from wallets.database_retry import retry_until_deadline
from wallets.error_mapping import to_problem
from wallets.keyed_requests import record
from wallets.ledger import COMMANDS, PENDING, Command, MakeTransfer, Posted
from wallets.problems import FieldError, IdempotencyKeyReused, ValidationError

ITEMS_PER_TURN: Final = 100
ITEMS_PER_CHECK: Final = 50
_ITEM_FIELD: Final = re.compile(r"operations\.(\d+)(.*)", re.DOTALL)
T = TypeVar("T")


class BulkOperations(Endpoint):
    """/operations"""

    max_body_bytes = sys.maxsize  # only MAX_BODY_BYTES limits it
    max_values = 30_000  # 30 for each of 1,000 operations

    @Declaration(
        "executeOperations",
        tag="operations",
        parameters=[key(MAX_BULK_KEY_LENGTH), PREFER],
        request=BulkToPost,
        examples={
            "a deposit and a transfer": {
                "operations": [
                    {
                        "walletId": WALLET_ID,
                        "operationType": "DEPOSIT",
                        "amount": "10.00",
                        "idempotencyKey": "a",
                    },
                    {"sourceWalletId": WALLET_ID, "targetWalletId": OTHER_WALLET_ID, "amount": "5.00"},
                ],
                "atomic": False,
            }
        },
        response=BulkBody,
        further_responses=first_refusal([*NEW_COMMAND, *TRANSFER_RULES]),
        refusals=[IdempotencyKeyReused],
    )
    def post(self, request: Request) -> Response:
        """Post many operations and transfers at once.

        Up to 1,000 items, in their order, each with its own result. With `atomic` all of them are executed or
        none; if one is refused, the response is the first refusal. An Idempotency-Key in the header covers
        the whole request, including the items without a key of their own.
        """
        asked = _read(request)
        commands = list(_cooperatively(_commands(request, asked)))
        who = principal(request)
        for command in commands:
            rights.require(who, command)
        if first := keyed(request, "POST /operations", asked):
            retry_until_deadline(lambda: record(first))
            give_back_connection()  # other requests may use it while this one waits for the ledger
        outcomes = ledger.submit_atomically(commands) if asked.atomic else ledger.submit_all(commands)
        results = list(_cooperatively(_result(outcome, request) for outcome in outcomes))
        is_replay = all(result["replayed"] for result in results)
        return Response({"results": results}, headers=REPLAYED if is_replay else {})


def _read(request: Request) -> BulkToPost:
    """Return the body, checked ITEMS_PER_CHECK items at a time. Raises for the first part with errors."""
    fields = read_object(request)
    items = fields.get("operations")
    if not isinstance(items, list) or not 0 < len(items) <= MAX_BULK_ITEMS:
        return check(BulkToPost, fields)
    parts = [
        _checked(fields | {"operations": items[start : start + ITEMS_PER_CHECK]}, start)
        for start in range(0, len(items), ITEMS_PER_CHECK)
    ]
    checked = [operation for part in parts for operation in part.operations]
    return parts[0].model_copy(update={"operations": checked})


def _checked(part: dict[str, Any], start: int) -> BulkToPost:
    """Check a part that begins at item `start`. Raises ValidationError with places in the whole body."""
    time.sleep(0)  # let other requests run: a thousand invalid items take long
    try:
        return check(BulkToPost, part)
    except ValidationError as problem:
        raise ValidationError(errors=[_moved(error, start) for error in problem.errors]) from None


def _moved(error: FieldError, by: int) -> FieldError:
    match = _ITEM_FIELD.fullmatch(error.field)
    return error if match is None else replace(error, field=f"operations.{int(match[1]) + by}{match[2]}")


def _cooperatively(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, and let other threads run after every ITEMS_PER_TURN: they may hold locks."""
    for number, item in enumerate(items):
        if number % ITEMS_PER_TURN == 0:
            time.sleep(0)
        yield item


def _commands(request: Request, body: BulkToPost) -> Iterator[Command]:
    key, is_async, caller = idempotency_key(request), wants_async(request), principal(request)
    if key and len(key) > MAX_BULK_KEY_LENGTH:
        detail = f"at most {MAX_BULK_KEY_LENGTH} characters for a bulk"
        raise ValidationError(errors=[FieldError("Idempotency-Key", "too_long", detail)])
    for number, item in enumerate(body.operations):
        # The header's key stands for the bulk: an item without a key gets one derived from it.
        item_key = item.idempotency_key or (f"{key}/{number}" if key else None)
        if item.id and item.idempotency_key:
            detail = "give either an id or an idempotencyKey"
            raise ValidationError(errors=[FieldError(f"operations.{number}.id", "conflict", detail)])
        yield _command(item, context_of(caller, item_key, item.id, is_async))


def _command(item: BulkOperation | BulkTransfer, context: dict[str, Any]) -> Command:
    context |= {"amount": item.amount, **details_in(item)}
    if isinstance(item, BulkTransfer):
        return MakeTransfer(wallet_id=item.source_wallet_id, target_id=item.target_wallet_id, **context)
    return COMMANDS[item.operation_type](wallet_id=item.wallet_id, **context)


def _result(outcome: Posted | Exception, request: Request) -> dict[str, Any]:
    """Return the result of an item: the response that it would get as a single request."""
    if isinstance(outcome, Exception):
        problem = to_problem(outcome)
        body = problem.as_json(request.id, settings.PUBLIC_URL)  # type: ignore[attr-defined]
        return {"status": problem.status, "replayed": problem.replayed, "problem": body}
    status = 202 if outcome.operation.status == PENDING else 201
    if outcome.operation.type == MakeTransfer.type:
        return {"status": status, "replayed": outcome.replayed, "transfer": transfer_body(outcome)}
    body = operation_body(outcome.operation, outcome.currency)
    return {"status": status, "replayed": outcome.replayed, "operation": body}
