"""Holds: money set aside, and taken or freed."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from wallets.access.authentication import principal
from wallets.access.rights import visible
from wallets.api import openapi
from wallets.api.bodies import hold_body
from wallets.api.endpoint import REPLAYED, Endpoint, carry_out, is_for_later, naming
from wallets.api.operations import operation_answer
from wallets.api.paging import Page
from wallets.api.requests import read, read_optional
from wallets.api.shapes import HoldQuery, HoldToPlace, Nothing, PartToTake
from wallets.ledger.batch import Posted
from wallets.ledger.commands import Capture, Hold, Void
from wallets.ledger.origins import owned, wallet_of_hold
from wallets.ledger.reader import read_wallet
from wallets.ledger.recovery import until_deadline
from wallets.models import Hold as HoldRow
from wallets.problems import HoldNotFound


class WalletHolds(Endpoint):
    """/wallets/{id}/holds"""

    @openapi.place_hold
    def post(self, request: Request, wallet_id: UUID) -> Response:
        asked = read(request, HoldToPlace)
        posted = carry_out(
            request,
            Hold(
                wallet_id=wallet_id,
                amount=asked.amount,
                expires_at=asked.expires_at,
                description=asked.description,
                **naming(request, asked.id),
            ),
        )
        return hold_answer(posted, 201, {"Location": f"/api/v1/holds/{posted.operation.id}"})

    @openapi.list_holds
    def get(self, request: Request, wallet_id: UUID) -> Response:
        page = Page(request.query_params, HoldQuery, f"holds of {wallet_id}")
        wallet = visible(principal(request), read_wallet(wallet_id))
        rows = HoldRow.objects.of_wallet(wallet_id).as_of_now(page.query.status)
        holds, next_cursor = until_deadline(lambda: page.of(rows))
        return Response(
            {"items": [hold_body(hold, wallet.currency) for hold in holds], "nextCursor": next_cursor}
        )


class HoldById(Endpoint):
    """/holds/{id}"""

    @openapi.read_hold
    def get(self, request: Request, hold_id: UUID) -> Response:
        holds = HoldRow.objects.as_of_now().select_related("wallet")
        hold = until_deadline(holds.filter(id=hold_id, **owned(principal(request).within)).first)
        if hold is None:
            raise HoldNotFound
        return Response(hold_body(hold, hold.wallet.currency))


class HoldCapture(Endpoint):
    """/holds/{id}/capture"""

    @openapi.capture_hold
    def post(self, request: Request, hold_id: UUID) -> Response:
        asked = read_optional(request, PartToTake)
        named = naming(request, asked.id)
        return operation_answer(
            carry_out(
                request,
                Capture(
                    wallet_id=wallet_of_hold(hold_id, principal(request).within),
                    hold_id=hold_id,
                    amount=asked.amount,
                    is_for_later=is_for_later(request),
                    **named,
                ),
            )
        )


class HoldVoid(Endpoint):
    """/holds/{id}/void"""

    @openapi.void_hold
    def post(self, request: Request, hold_id: UUID) -> Response:
        asked = read_optional(request, Nothing)
        named = naming(request, asked.id)
        wallet_id = wallet_of_hold(hold_id, principal(request).within)
        posted = carry_out(request, Void(wallet_id=wallet_id, hold_id=hold_id, **named))
        return hold_answer(posted, 200, {})


def hold_answer(posted: Posted, status: int, headers: dict[str, str]) -> Response:
    assert posted.hold  # noqa: S101 - every command on a hold leaves it in its outcome
    return Response(
        hold_body(posted.hold, posted.currency),
        status=status,
        headers=headers | (REPLAYED if posted.replayed else {}),
    )
