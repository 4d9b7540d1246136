"""Deposits, withdrawals and reversals, and their history."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from wallets.access.authentication import principal
from wallets.access.rights import visible
from wallets.api import openapi
from wallets.api.bodies import operation_body
from wallets.api.endpoint import Endpoint, answer, carry_out, is_for_later, naming
from wallets.api.paging import Page
from wallets.api.requests import read, read_optional
from wallets.api.shapes import OperationQuery, OperationToPost, PartToTake, WalletOperationToPost
from wallets.ledger.batch import Posted
from wallets.ledger.commands import COMMANDS, Reversal
from wallets.ledger.origins import original
from wallets.ledger.reader import read_operation, read_wallet
from wallets.ledger.recovery import until_deadline
from wallets.models import Operation
from wallets.problems import OperationNotFound


def post_operation(request: Request, wallet_id: UUID, asked: OperationToPost) -> Response:
    return operation_answer(
        carry_out(
            request,
            COMMANDS[asked.operation_type](
                wallet_id=wallet_id,
                amount=asked.amount,
                description=asked.description,
                metadata=asked.metadata,
                is_for_later=is_for_later(request),
                **naming(request, asked.id),
            ),
        )
    )


def operation_answer(posted: Posted) -> Response:
    body = operation_body(posted.operation, posted.currency)
    return answer(posted, body, f"operations/{posted.operation.id}")


class WalletOperation(Endpoint):
    """/wallets/{id}/operation"""

    @openapi.post_operation
    def post(self, request: Request, wallet_id: UUID) -> Response:
        return post_operation(request, wallet_id, read(request, OperationToPost))


class WalletOperationInBody(Endpoint):
    """/wallet"""

    @openapi.post_wallet_operation
    def post(self, request: Request) -> Response:
        asked = read(request, WalletOperationToPost)
        return post_operation(request, asked.wallet_id, asked)


class OperationById(Endpoint):
    """/operations/{id}"""

    @openapi.read_operation
    def get(self, request: Request, operation_id: UUID) -> Response:
        found = read_operation(operation_id, principal(request).within)
        if found is None:
            raise OperationNotFound
        return Response(operation_body(found.operation, found.currency))


class OperationReversal(Endpoint):
    """/operations/{id}/reversal"""

    @openapi.reverse_operation
    def post(self, request: Request, operation_id: UUID) -> Response:
        asked = read_optional(request, PartToTake)
        named = naming(request, asked.id)
        wallet_id, to_reverse = original(operation_id, principal(request).within)
        return operation_answer(
            carry_out(
                request,
                Reversal(
                    wallet_id=wallet_id,
                    original=to_reverse,
                    amount=asked.amount,
                    is_for_later=is_for_later(request),
                    **named,
                ),
            )
        )


class WalletOperations(Endpoint):
    """/wallets/{id}/operations"""

    @openapi.list_operations
    def get(self, request: Request, wallet_id: UUID) -> Response:
        page = Page(request.query_params, OperationQuery, f"operations of {wallet_id}")
        wallet = visible(principal(request), read_wallet(wallet_id))
        query = page.query
        given = {
            "type": query.type,
            "status": query.status,
            "created_at__gte": query.from_,
            "created_at__lt": query.to,
        }
        filters = {name: value for name, value in given.items() if value is not None}
        history = Operation.objects.of_wallet(wallet_id).filter(**filters)
        if query.type is None:
            history = history.that_move_money()
        operations, next_cursor = until_deadline(lambda: page.of(history))
        items = [operation_body(operation, wallet.currency) for operation in operations]
        return Response({"items": items, "nextCursor": next_cursor})
