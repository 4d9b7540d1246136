"""Deposits, withdrawals and reversals, and their history."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from wallets import ledger
from wallets.access import rights
from wallets.access.authentication import principal
from wallets.access.rights import visible
from wallets.api.bulk import BulkOperations
from wallets.api.endpoint import Endpoint
from wallets.api.examples import OPERATION_ID, WALLET_ID
from wallets.api.openapi import LIMITS, MOVABLE, NEW_COMMAND, Declaration
from wallets.contract.paging import Page
from wallets.contract.parsing import command_context, details_in, read, read_optional
from wallets.contract.request_schemas import (
    OperationQuery,
    OperationSearchQuery,
    OperationToPost,
    PartToTake,
    WalletOperationToPost,
)
from wallets.contract.responses import (
    OperationBody,
    OperationDetailBody,
    OperationPage,
    operation_body,
    operation_created,
    operation_detail_body,
)
from wallets.contract.search import search_operations
from wallets.database_retry import retry_until_deadline
from wallets.ledger import COMMANDS, Reverse, original, read_operation, read_reversals, read_wallet
from wallets.problems import (
    FieldError,
    IdempotencyKeyReused,
    OperationNotFound,
    OperationNotReversible,
    ReversalExceedsOriginal,
    TargetCannotReceive,
    ValidationError,
    WalletNotFound,
)


def post_operation(request: Request, wallet_id: UUID, body: OperationToPost) -> Response:
    command = COMMANDS[body.operation_type](
        wallet_id=wallet_id,
        amount=body.amount,
        **details_in(body),
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

    @Declaration("getOperation", response=OperationDetailBody, refusals=[OperationNotFound])
    def get(self, request: Request, operation_id: UUID) -> Response:
        """Read an operation.

        An operation that was decided never changes: the ledger is append-only. Only its reversals may grow.
        """
        found = read_operation(operation_id, principal(request).owner_restriction)
        if found is None:
            raise OperationNotFound
        reversals = read_reversals(found.operation)
        return Response(operation_detail_body(found.operation, found.currency, reversals))


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
        command = Reverse(
            wallet_id=wallet_id,
            original=to_reverse,
            amount=body.amount,
            inherited=to_reverse.details,
            **details_in(body),
            **context,
        )
        rights.require(principal(request), command)
        return operation_created(ledger.submit(command))


class WalletOperations(Endpoint):
    """/wallets/{id}/operations"""

    @Declaration(
        "listWalletOperations", query=OperationQuery, response=OperationPage, refusals=[WalletNotFound]
    )
    def get(self, request: Request, wallet_id: UUID) -> Response:
        """List a wallet's operations, newest first.

        Refused operations are history too. Without `type`, holds and voids are left out: they move no money.
        The cursor carries its filters. A page may be shorter than `limit`, even empty, if few operations
        match; the list ends where `nextCursor` is null.
        """
        page = Page(request.query_params, OperationQuery, f"operations of {wallet_id}")
        wallet = visible(principal(request), read_wallet(wallet_id))
        query = OperationSearchQuery.model_construct(wallet_id=wallet_id, **page.query.__dict__)
        found = retry_until_deadline(lambda: search_operations(query, principal(request)))
        rows = found.rows.that_move_money() if query.type is None else found.rows
        return page.respond(
            rows,
            lambda page: (operation_body(operation, wallet.currency) for operation in page),
            found.scanned,
            found.has_few_rows,
        )


class Operations(BulkOperations):
    """/operations"""

    @Declaration(
        "listOperations", query=OperationSearchQuery, response=OperationPage, refusals=[WalletNotFound]
    )
    def get(self, request: Request) -> Response:
        """Find operations in all wallets, newest first.

        By the client's own names (`reference`, `idempotencyKey`, metadata) and by all fields that narrow a
        history. Holds and voids are included. A restricted key or a user must name `walletId`,
        `idempotencyKey` or `transferId`. A page may be shorter than `limit`, even empty, if few operations
        match; the list ends where `nextCursor` is null.
        """
        page = Page(request.query_params, OperationSearchQuery, "operations")
        query, restriction = page.query, principal(request).owner_restriction
        if query.wallet_id is not None:
            visible(principal(request), read_wallet(query.wallet_id))
        elif restriction is not None and query.idempotency_key is None and query.transfer_id is None:
            detail = "restricted credentials must give walletId, idempotencyKey or transferId"
            raise ValidationError(errors=[FieldError("walletId", "required", detail)])
        found = retry_until_deadline(lambda: search_operations(query, principal(request)))
        rows = found.rows.select_related("wallet")
        return page.respond(
            rows,
            lambda page: (operation_body(operation, operation.wallet.currency) for operation in page),
            found.scanned,
            found.has_few_rows,
        )
