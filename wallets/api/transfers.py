"""Transfers between two wallets."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from wallets import ledger
from wallets.access import rights
from wallets.access.authentication import principal
from wallets.access.people import wallet_of
from wallets.api.endpoint import Endpoint
from wallets.api.examples import OTHER_WALLET_ID, WALLET_ID
from wallets.api.openapi import NEW_COMMAND, TRANSFER_RULES, Declaration
from wallets.contract.parsing import command_context, details_in, read
from wallets.contract.request_schemas import SAME_WALLET, TransferToPost
from wallets.contract.responses import TransferBody, created, transfer_body
from wallets.ledger import MakeTransfer, read_transfer
from wallets.problems import FieldError, TransferNotFound, ValidationError


class Transfers(Endpoint):
    """/transfers"""

    @Declaration(
        "createTransfer",
        request=TransferToPost,
        examples={
            "transfer": {"sourceWalletId": WALLET_ID, "targetWalletId": OTHER_WALLET_ID, "amount": "15.50"}
        },
        status=201,
        response=TransferBody,
        can_be_async=True,
        refusals=[*NEW_COMMAND, *TRANSFER_RULES],
    )
    def post(self, request: Request) -> Response:
        """Transfer money to another wallet.

        Both wallets or none; one currency. The Idempotency-Key is the source's. A restricted key pays from
        its owner's wallets alone, to any.
        """
        body = read(request, TransferToPost)
        context = command_context(request, body.id)
        target_id = body.target_wallet_id or wallet_of(
            body.target_email or "", body.source_wallet_id, principal(request), context["key"]
        )
        if target_id == body.source_wallet_id:
            raise ValidationError(errors=[FieldError("targetEmail", *SAME_WALLET)])
        command = MakeTransfer(
            wallet_id=body.source_wallet_id,
            target_id=target_id,
            amount=body.amount,
            **details_in(body),
            **context,
        )
        rights.require(principal(request), command)
        posted = ledger.submit(command)
        return created(posted, transfer_body(posted), f"transfers/{posted.operation.id}")


class TransferById(Endpoint):
    """/transfers/{id}"""

    @Declaration("getTransfer", response=TransferBody, refusals=[TransferNotFound])
    def get(self, request: Request, transfer_id: UUID) -> Response:
        """Read a transfer.

        With the operations on both sides. To a restricted key another owner's balance is null.
        """
        found = read_transfer(transfer_id, principal(request).owner_restriction)
        if found is None:
            raise TransferNotFound
        return Response(transfer_body(found))
