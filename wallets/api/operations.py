"""Deposits, withdrawals and reversals, and their history."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from wallets.access.authentication import principal
from wallets.access.rights import visible
from wallets.api.endpoint import Endpoint, answer, carry_out, deferrable_fields, movement_fields
from wallets.api.examples import OPERATION_ID, WALLET_ID
from wallets.api.openapi import LIMITS, MOVABLE, NEW_COMMAND, Declaration
from wallets.api.paging import Page
from wallets.api.parsing import read, read_optional
from wallets.api.request_schemas import OperationQuery, OperationToPost, PartToTake, WalletOperationToPost
from wallets.api.responses import OperationBody, OperationPage, operation_body
from wallets.ledger.commands import COMMANDS, Reverse
from wallets.ledger.decisions import Posted
from wallets.ledger.lookups import original
from wallets.ledger.reader import read_operation, read_wallet
from wallets.models import Operation
from wallets.problems import (
    IdempotencyKeyReused,
    OperationNotFound,
    OperationNotReversible,
    ReversalExceedsOriginal,
    TargetCannotReceive,
    WalletNotFound,
)


def post_operation(request: Request, wallet_id: UUID, asked: OperationToPost) -> Response:
    kind = COMMANDS[asked.operation_type]
    command = kind(wallet_id=wallet_id, **movement_fields(asked), **deferrable_fields(request, asked.id))
    return operation_answer(carry_out(request, command))


def operation_answer(posted: Posted) -> Response:
    body = operation_body(posted.operation, posted.currency)
    return answer(posted, body, f"operations/{posted.operation.id}")


class WalletOperation(Endpoint):
    """/wallets/{id}/operation"""

    @Declaration(
        "operations_post",
        request=OperationToPost,
        examples={
            "deposit": {"operationType": "DEPOSIT", "amount": "1000.00"},
            "withdraw": {"operationType": "WITHDRAW", "amount": 115.6, "description": "coffee"},
        },
        status=201,
        response=OperationBody,
        can_be_async=True,
        refusals=[*NEW_COMMAND, *MOVABLE, *LIMITS],
    )
    def post(self, request: Request, wallet_id: UUID) -> Response:
        """Deposit or withdraw.

        Answered when it is committed. A refusal by a rule is recorded, and moves nothing.
        """
        return post_operation(request, wallet_id, read(request, OperationToPost))


class WalletOperationInBody(Endpoint):
    """/wallet"""

    @Declaration(
        "operations_post_by_body",
        request=WalletOperationToPost,
        examples={"deposit": {"walletId": WALLET_ID, "operationType": "DEPOSIT", "amount": 1000}},
        status=201,
        response=OperationBody,
        can_be_async=True,
        refusals=[*NEW_COMMAND, *MOVABLE, *LIMITS],
    )
    def post(self, request: Request) -> Response:
        """Deposit or withdraw, with the wallet in the body.

        `valletId` is taken as a spelling of `walletId`.
        """
        asked = read(request, WalletOperationToPost)
        return post_operation(request, asked.wallet_id, asked)


class OperationById(Endpoint):
    """/operations/{id}"""

    @Declaration("operations_read", response=OperationBody, refusals=[OperationNotFound])
    def get(self, request: Request, operation_id: UUID) -> Response:
        """Read an operation.

        An operation that was decided never changes: the ledger is append-only.
        """
        found = read_operation(operation_id, principal(request).owner_restriction)
        if found is None:
            raise OperationNotFound
        return Response(operation_body(found.operation, found.currency))


class OperationReversal(Endpoint):
    """/operations/{id}/reversal"""

    @Declaration(
        "operations_reverse",
        request=PartToTake,
        examples={"a part": {"amount": "100.00"}},
        status=201,
        response=OperationBody,
        example={
            "id": "01930a5d-b1c6-7d3e-9f40-5a6b7c8d9e14",
            "sequence": 4,
            "operationType": "REVERSAL_OUT",
            "amount": "100.00",
            "balance": "734.50",
            "reversesId": OPERATION_ID,
            "idempotencyKey": None,
        },
        can_be_async=True,
        refusals=[
            *(OperationNotFound, IdempotencyKeyReused, *MOVABLE, OperationNotReversible),
            *(ReversalExceedsOriginal, *LIMITS, TargetCannotReceive),
        ],
    )
    def post(self, request: Request, operation_id: UUID) -> Response:
        """Reverse an operation, as a whole or in part.

        Moves money back, of a transfer on both sides. All reversals of an operation together never move more
        than it did.
        """
        asked = read_optional(request, PartToTake)
        named = deferrable_fields(request, asked.id)
        wallet_id, to_reverse = original(operation_id, principal(request).owner_restriction)
        command = Reverse(wallet_id=wallet_id, original=to_reverse, amount=asked.amount, **named)
        return operation_answer(carry_out(request, command))


class WalletOperations(Endpoint):
    """/wallets/{id}/operations"""

    @Declaration("operations_list", query=OperationQuery, response=OperationPage, refusals=[WalletNotFound])
    def get(self, request: Request, wallet_id: UUID) -> Response:
        """List a wallet's operations, newest first.

        Refused operations are history too. The cursor carries its filters.
        """
        page = Page(request.query_params, OperationQuery, f"operations of {wallet_id}")
        wallet = visible(principal(request), read_wallet(wallet_id))
        query = page.query
        period = {"created_at__gte": query.from_, "created_at__lt": query.to}
        given = {"type": query.type, "status": query.status, **period}
        filters = {name: value for name, value in given.items() if value is not None}
        history = Operation.objects.of_wallet(wallet_id).filter(**filters)
        if query.type is None:
            history = history.that_move_money()
        return page.answer(history, lambda found: (operation_body(each, wallet.currency) for each in found))
