"""Opening, reading and changing wallets."""

from dataclasses import replace
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from wallets.access.authentication import principal
from wallets.access.rights import require_overdraft_limit, require_unrestricted, visible
from wallets.api import openapi
from wallets.api.bodies import wallet_body
from wallets.api.endpoint import REPLAYED, Endpoint, id_of_new
from wallets.api.paging import Page
from wallets.api.requests import names_tag, read
from wallets.api.shapes import PageQuery, WalletChanges, WalletToOpen
from wallets.ledger.reader import read_wallet
from wallets.ledger.recovery import until_deadline
from wallets.ledger.wallets import Change, Opening, change_wallet, open_wallet, require_fitting_limits
from wallets.models import Wallet
from wallets.problems import PreconditionFailed


class OpenWallet(Endpoint):
    """/wallet/create"""

    @openapi.open_wallet
    def post(self, request: Request) -> Response:
        asked = read(request, WalletToOpen)
        if asked.overdraft_limit:
            require_overdraft_limit(principal(request))
        given = {name: getattr(asked, name) for name in WalletToOpen.model_fields}
        opening = Opening(owner_id=principal(request).within, **given)
        require_fitting_limits(opening)
        opened = open_wallet(replace(opening, id=id_of_new(request, "POST /wallets", asked)))
        headers = {"Location": f"/api/v1/wallets/{opened.wallet.id}", "ETag": etag(opened.wallet)}
        return Response(
            wallet_body(opened.wallet), status=201, headers=headers | (REPLAYED if opened.replayed else {})
        )


class Wallets(OpenWallet):
    """/wallets"""

    @openapi.list_wallets
    def get(self, request: Request) -> Response:
        page = Page(request.query_params, PageQuery, "wallets")
        wallets = Wallet.objects.with_expired()
        if (owner_id := principal(request).within) is not None:
            wallets = wallets.filter(owner_id=owner_id)
        items, next_cursor = until_deadline(lambda: page.of(wallets))
        return Response({"items": [wallet_body(wallet) for wallet in items], "nextCursor": next_cursor})


class WalletById(Endpoint):
    """/wallets/{id}"""

    @openapi.read_wallet
    def get(self, request: Request, wallet_id: UUID) -> Response:
        wallet = visible(principal(request), read_wallet(wallet_id))
        tag = etag(wallet)
        if names_tag(request.META.get("HTTP_IF_NONE_MATCH"), tag):
            return Response(status=304, headers={"ETag": tag})
        return Response(wallet_body(wallet), headers={"ETag": tag})

    @openapi.change_wallet
    def patch(self, request: Request, wallet_id: UUID) -> Response:
        asked = read(request, WalletChanges)
        if "status" in asked.model_fields_set:
            require_unrestricted(principal(request), "status")
        expected = request.META.get("HTTP_IF_MATCH")

        def as_expected(wallet: Wallet) -> None:
            visible(principal(request), wallet)
            if expected is not None and not names_tag(expected, etag(wallet)):
                raise PreconditionFailed

        given = {name: getattr(asked, name) for name in asked.model_fields_set}
        change = Change(actor=principal(request).actor, **given)
        wallet = change_wallet(wallet_id, change, precondition=as_expected)
        return Response(wallet_body(wallet), headers={"ETag": etag(wallet)})


def etag(wallet: Wallet) -> str:
    """Changes with every operation and change, as no two of them share a time; and with a hold's expiry."""
    return f'"{wallet.sequence}-{wallet.updated_at.timestamp():.6f}-{wallet.held_now:f}"'
