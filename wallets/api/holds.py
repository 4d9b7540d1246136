"""Holds: money set aside, and taken or freed."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from wallets import ledger
from wallets.access import rights
from wallets.access.authentication import principal
from wallets.access.rights import visible
from wallets.api.endpoint import Endpoint
from wallets.api.examples import HOLD_ID, TIME
from wallets.api.openapi import MOVABLE, NEW_COMMAND, Declaration
from wallets.contract.paging import Page
from wallets.contract.parsing import command_context, details_in, read, read_optional
from wallets.contract.request_schemas import HoldQuery, HoldToPlace, HoldToVoid, PartToTake
from wallets.contract.responses import (
    HoldBody,
    HoldDetailBody,
    HoldPage,
    OperationBody,
    hold_body,
    hold_detail_body,
    operation_created,
    replay_header,
)
from wallets.database_retry import retry_until_deadline
from wallets.ledger import CaptureHold, PlaceHold, Posted, VoidHold, hold_to_end, owner_filter, read_wallet
from wallets.models import Hold, Operation
from wallets.problems import (
    HoldAmountExceeded,
    HoldNotActive,
    HoldNotFound,
    IdempotencyKeyReused,
    InsufficientFunds,
    WalletClosed,
    WalletNotFound,
)


class WalletHolds(Endpoint):
    """/wallets/{id}/holds"""

    @Declaration(
        "placeHold",
        request=HoldToPlace,
        examples={"for a week": {"amount": "200.00", "expiresAt": "2026-11-28T09:30:00Z"}},
        status=201,
        response=HoldBody,
        refusals=[*NEW_COMMAND, *MOVABLE, InsufficientFunds],
    )
    def post(self, request: Request, wallet_id: UUID) -> Response:
        """Set money aside.

        Moves nothing: `held` grows and `available` shrinks, until the hold is captured or voided, or expires.
        """
        body = read(request, HoldToPlace)
        command = PlaceHold(
            wallet_id=wallet_id,
            amount=body.amount,
            expires_at=body.expires_at,
            **details_in(body),
            **command_context(request, body.id, may_be_async=False),
        )
        rights.require(principal(request), command)
        posted = ledger.submit(command)
        return hold_response(posted, 201, {"Location": f"/api/v1/holds/{posted.operation.id}"})

    @Declaration("listHolds", query=HoldQuery, response=HoldPage, refusals=[WalletNotFound])
    def get(self, request: Request, wallet_id: UUID) -> Response:
        """List a wallet's holds, newest first.

        The cursor carries its filter.
        """
        page = Page(request.query_params, HoldQuery, f"holds of {wallet_id}")
        wallet = visible(principal(request), read_wallet(wallet_id))
        rows = Hold.objects.of_wallet(wallet_id).as_of_now(page.query.status)
        return page.respond(rows, lambda found: (hold_body(hold, wallet.currency) for hold in found))


class HoldById(Endpoint):
    """/holds/{id}"""

    @Declaration("getHold", response=HoldDetailBody, refusals=[HoldNotFound])
    def get(self, request: Request, hold_id: UUID) -> Response:
        """Read a hold.

        It expires at its time, not when a job happens to run.
        """
        holds = Hold.objects.as_of_now().select_related("wallet")
        hold = retry_until_deadline(
            holds.filter(id=hold_id, **owner_filter(principal(request).owner_restriction)).first
        )
        if hold is None:
            raise HoldNotFound
        captures = Operation.objects.filter(
            wallet_id=hold.wallet_id,
            hold_id=hold_id,
            type=CaptureHold.type,
            status=Operation.Status.COMPLETED,
        )
        found = retry_until_deadline(lambda: list(captures))
        return Response(hold_detail_body(hold, hold.wallet.currency, found))


class HoldCapture(Endpoint):
    """/holds/{id}/capture"""

    @Declaration(
        "captureHold",
        request=PartToTake,
        examples={"a part": {"amount": "150.00"}},
        status=201,
        response=OperationBody,
        example={
            "id": "01930a5d-b1c5-7d3e-9f40-5a6b7c8d9e13",
            "sequence": 3,
            "operationType": "CAPTURE",
            "amount": "150.00",
            "balance": "834.50",
            "holdId": HOLD_ID,
            "idempotencyKey": None,
        },
        can_be_async=True,
        refusals=[HoldNotFound, IdempotencyKeyReused, *MOVABLE, HoldNotActive, HoldAmountExceeded],
    )
    def post(self, request: Request, hold_id: UUID) -> Response:
        """Take what a hold has set aside, or a part of it.

        Once; the rest is released.
        """
        body = read_optional(request, PartToTake)
        context = command_context(request, body.id)
        wallet_id, inherited = hold_to_end(hold_id, principal(request).owner_restriction)
        command = CaptureHold(
            wallet_id=wallet_id,
            hold_id=hold_id,
            amount=body.amount,
            inherited=inherited,
            **details_in(body),
            **context,
        )
        rights.require(principal(request), command)
        return operation_created(ledger.submit(command))


class HoldVoid(Endpoint):
    """/holds/{id}/void"""

    @Declaration(
        "voidHold",
        request=HoldToVoid,
        examples={"no fields": {}},
        response=HoldBody,
        example={"status": "VOIDED", "endedAt": TIME},
        refusals=[HoldNotFound, IdempotencyKeyReused, WalletClosed, HoldNotActive],
    )
    def post(self, request: Request, hold_id: UUID) -> Response:
        """Release all that a hold has set aside.

        In a frozen wallet too: no money moves.
        """
        body = read_optional(request, HoldToVoid)
        context = command_context(request, body.id, may_be_async=False)
        wallet_id, inherited = hold_to_end(hold_id, principal(request).owner_restriction)
        command = VoidHold(
            wallet_id=wallet_id, hold_id=hold_id, inherited=inherited, **details_in(body), **context
        )
        rights.require(principal(request), command)
        return hold_response(ledger.submit(command), 200, {})


def hold_response(posted: Posted, status: int, headers: dict[str, str]) -> Response:
    assert posted.hold  # noqa: S101 - the outcome of each command on a hold has it
    return Response(hold_body(posted.hold, posted.currency), status, headers=headers | replay_header(posted))
