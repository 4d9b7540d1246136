"""Opening, reading and changing wallets."""

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from wallets.api import openapi
from wallets.api.bodies import wallet_body
from wallets.api.endpoint import REPLAYED, Endpoint
from wallets.api.paging import Page
from wallets.api.requests import read
from wallets.api.shapes import PageQuery, WalletChanges, WalletToOpen
from wallets.ledger.reader import read_wallet
from wallets.ledger.recovery import until_deadline
from wallets.ledger.wallets import Change, Opening, change_wallet, open_wallet
from wallets.models import Wallet
from wallets.problems import PreconditionFailed, WalletNotFound


class OpenWallet(Endpoint):
    """/wallet/create"""

    @openapi.open_wallet
    def post(self, request: Request) -> Response:
        asked = read(request, WalletToOpen)
        opened = open_wallet(Opening(**{name: getattr(asked, name) for name in WalletToOpen.model_fields}))
        headers = {"Location": f"/api/v1/wallets/{opened.wallet.id}", "ETag": etag(opened.wallet)}
        return Response(
            wallet_body(opened.wallet), status=201, headers=headers | (REPLAYED if opened.replayed else {})
        )


class Wallets(OpenWallet):
    """/wallets"""

    @openapi.list_wallets
    def get(self, request: Request) -> Response:
        page = Page(request.query_params, PageQuery)
        wallets, next_cursor = until_deadline(lambda: page.of(Wallet.objects.with_expired()))
        return Response({"items": [wallet_body(wallet) for wallet in wallets], "nextCursor": next_cursor})


class WalletById(Endpoint):
    """/wallets/{id}"""

    @openapi.read_wallet
    def get(self, request: Request, wallet_id: UUID) -> Response:
        wallet = read_wallet(wallet_id)
        if wallet is None:
            raise WalletNotFound
        tag = etag(wallet)
        if matches(request.META.get("HTTP_IF_NONE_MATCH"), tag):
            return Response(status=304, headers={"ETag": tag})
        return Response(wallet_body(wallet), headers={"ETag": tag})

    @openapi.change_wallet
    def patch(self, request: Request, wallet_id: UUID) -> Response:
        asked = read(request, WalletChanges)
        expected = request.META.get("HTTP_IF_MATCH")

        def as_expected(wallet: Wallet) -> None:
            if expected is not None and not matches(expected, etag(wallet)):
                raise PreconditionFailed

        change = Change(**{name: getattr(asked, name) for name in asked.model_fields_set})
        wallet = change_wallet(wallet_id, change, precondition=as_expected)
        return Response(wallet_body(wallet), headers={"ETag": etag(wallet)})


def etag(wallet: Wallet) -> str:
    """Changes with every operation and change, as no two of them share a time; and with a hold's expiry."""
    return f'"{wallet.sequence}-{wallet.updated_at.timestamp():.6f}-{wallet.held_now:f}"'


def matches(header: str | None, tag: str) -> bool:
    """Whether an If-Match or If-None-Match header names the tag."""
    if header is None:
        return False
    return header.strip() == "*" or tag in (item.strip().removeprefix("W/") for item in header.split(","))
