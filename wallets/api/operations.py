"""Deposits, withdrawals and reversals, and their history."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from wallets import ledger
from wallets.access import rights
from wallets.access.authentication import principal
from wallets.access.rights import visible
from wallets.api.endpoint import Endpoint
from wallets.api.examples import OPERATION_ID, WALLET_ID
from wallets.api.openapi import LIMITS, MOVABLE, NEW_COMMAND, Declaration
from wallets.contract.paging import Page
from wallets.contract.parsing import command_context, read, read_optional
from wallets.contract.request_schemas import (
    OperationQuery,
    OperationToPost,
    PartToTake,
    WalletOperationToPost,
)
from wallets.contract.responses import OperationBody, OperationPage, operation_body, operation_created
from wallets.ledger import COMMANDS, Reverse, original, read_operation, read_wallet
from wallets.models import Operation
from wallets.problems import (
    IdempotencyKeyReused,
    OperationNotFound,
    OperationNotReversible,
    ReversalExceedsOriginal,
    TargetCannotReceive,
    WalletNotFound,
)


def post_operation(request: Request, wallet_id: UUID, body: OperationToPost) -> Response:
    command = COMMANDS[body.operation_type](
        wallet_id=wallet_id,
        amount=body.amount,
        description=body.description,
        metadata=body.metadata,
        **command_context(request, body.id),
    )
    rights.require(principal(request), command)
    # The wallet is locked in wallets/ledger/execute.py: select_for_update() in transaction.atomic().
    return operation_created(ledger.submit(command))


class WalletOperation(Endpoint):
    """/wallets/{id}/operation"""

    @Declaration(
        "depositOrWithdraw",
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

        The response comes after the commit. A refusal by a rule is recorded and moves no money.
        """
        return post_operation(request, wallet_id, read(request, OperationToPost))


class WalletOperationInBody(Endpoint):
    """/wallet"""

    @Declaration(
        "depositOrWithdrawByBody",
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

    @Declaration("getOperation", response=OperationBody, refusals=[OperationNotFound])
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
        "reverseOperation",
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
        body = read_optional(request, PartToTake)
        context = command_context(request, body.id)
        wallet_id, to_reverse = original(operation_id, principal(request).owner_restriction)
        command = Reverse(wallet_id=wallet_id, original=to_reverse, amount=body.amount, **context)
        rights.require(principal(request), command)
        return operation_created(ledger.submit(command))


class WalletOperations(Endpoint):
    """/wallets/{id}/operations"""

    @Declaration("listOperations", query=OperationQuery, response=OperationPage, refusals=[WalletNotFound])
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
        return page.respond(history, lambda found: (operation_body(each, wallet.currency) for each in found))
