"""Views that open, read and change wallets."""

from dataclasses import replace
from uuid import UUID

from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_view
from pydantic.alias_generators import to_camel
from rest_framework.request import Request
from rest_framework.response import Response

from wallets.access.authentication import principal
from wallets.access.rights import require_limits, require_unrestricted, visible
from wallets.api.endpoint import Endpoint, id_of_new
from wallets.api.openapi import Declaration, header
from wallets.contract.paging import Page
from wallets.contract.parsing import names_tag, read
from wallets.contract.request_schemas import WalletChanges, WalletSearchQuery, WalletToOpen
from wallets.contract.responses import WalletBody, WalletPage, etag, replay_header, wallet_body
from wallets.contract.search import search_wallets
from wallets.database_retry import retry_until_deadline
from wallets.ledger import (
    Opening,
    WalletUpdate,
    change_wallet,
    open_wallet,
    read_wallet,
    require_fitting_limits,
)
from wallets.models import User, Wallet
from wallets.problems import (
    AccountNotFound,
    BalanceLimitExceeded,
    ExternalIdTaken,
    IdempotencyKeyReused,
    OverdraftLimitExceeded,
    PreconditionFailed,
    WalletClosed,
    WalletNotEmpty,
    WalletNotFound,
)


class OpenWallet(Endpoint):
    """/wallet/create"""

    @Declaration(
        "openWallet",
        request=WalletToOpen,
        examples={"a wallet in euros": {"currency": "EUR", "label": "till 1", "overdraftLimit": "100.00"}},
        status=201,
        response=WalletBody,
        example={"balance": "0.00", "available": "0.00", "sequence": 0},
        refusals=[IdempotencyKeyReused, ExternalIdTaken],
    )
    def post(self, request: Request) -> Response:
        """Open a wallet.

        With an `id` of your choice or an Idempotency-Key a retry is safe: the same request gets the first
        response. A wallet that a restricted key opens belongs to its owner. An `overdraftLimit` of more than
        zero needs the scope limits:write too.
        """
        asked = read(request, WalletToOpen)
        if asked.overdraft_limit:
            require_limits(principal(request), "overdraftLimit")
        given = {name: getattr(asked, name) for name in WalletToOpen.model_fields}
        opening = Opening(owner_id=principal(request).owner_restriction, **given)
        require_fitting_limits(opening)
        opened = open_wallet(replace(opening, id=id_of_new(request, "POST /wallets", asked)))
        headers = {"Location": f"/api/v1/wallets/{opened.wallet.id}", "ETag": etag(opened.wallet)}
        return Response(wallet_body(opened.wallet), status=201, headers=headers | replay_header(opened))


@extend_schema_view(post=extend_schema("createWallet"))
class Wallets(OpenWallet):
    """/wallets"""

    @Declaration("listWallets", query=WalletSearchQuery, response=WalletPage)
    def get(self, request: Request) -> Response:
        """List wallets, newest first.

        Only wallets that the credentials may read. Paged by cursor: stable while wallets are opened. A page
        may be shorter than `limit`, even empty, if few wallets match the filters; the list ends where
        `nextCursor` is null.
        """
        page = Page(request.query_params, WalletSearchQuery, "wallets")
        restriction = principal(request).owner_restriction
        found = retry_until_deadline(lambda: search_wallets(page.query, restriction))
        return page.respond(
            found.rows, lambda page: map(wallet_body, page), found.scanned, found.has_few_rows
        )


class WalletById(Endpoint):
    """/wallets/{id}"""

    @Declaration(
        "getWallet",
        parameters=[header("If-None-Match")],
        response=WalletBody,
        further_responses={
            304: OpenApiResponse(description="The wallet has not changed since the ETag in If-None-Match.")
        },
        refusals=[WalletNotFound],
    )
    def get(self, request: Request, wallet_id: UUID) -> Response:
        """Read a wallet.

        The state is never older than the request.
        """
        wallet = visible(principal(request), read_wallet(wallet_id))
        tag = etag(wallet)
        if names_tag(request.META.get("HTTP_IF_NONE_MATCH"), tag):
            return Response(status=304, headers={"ETag": tag})
        return Response(wallet_body(wallet), headers={"ETag": tag})

    @Declaration(
        "updateWallet",
        parameters=[header("If-Match")],
        request=WalletChanges,
        examples={
            "freeze": {"status": "FROZEN"},
            "set a member of the metadata and remove another": {"metadata": {"till": "7", "closedBy": None}},
        },
        response=WalletBody,
        example={"status": "FROZEN"},
        refusals=[
            *(AccountNotFound, WalletNotFound, PreconditionFailed, WalletClosed, WalletNotEmpty),
            *(OverdraftLimitExceeded, BalanceLimitExceeded, ExternalIdTaken),
        ],
    )
    def patch(self, request: Request, wallet_id: UUID) -> Response:
        """Change the names, the metadata, the status, the limits or the owner of a wallet.

        `metadata` is a merge patch (RFC 7396): a member with null is removed, others that are not named stay.
        Only an empty wallet can be closed, and it stays closed. Limits and the owner need the scope
        limits:write and an unrestricted key. A limit that the balance already exceeds is refused.
        """
        asked = read(request, WalletChanges)
        if "status" in asked.model_fields_set:
            require_unrestricted(principal(request), "status")
        expected = request.META.get("HTTP_IF_MATCH")

        def as_expected(wallet: Wallet) -> None:
            visible(principal(request), wallet)
            if expected is not None and not names_tag(expected, etag(wallet)):
                raise PreconditionFailed

        given = asked.given()
        for name in ("overdraft_limit", "max_balance", "owner_email"):
            if name in given:
                require_limits(principal(request), to_camel(name))
        if "owner_email" in given:
            given["owner_id"] = _owner_of(given.pop("owner_email"))
        change = WalletUpdate(actor=principal(request).actor, **given)
        wallet = change_wallet(wallet_id, change, precondition=as_expected)
        return Response(wallet_body(wallet), headers={"ETag": etag(wallet)})


def _owner_of(email: str | None) -> int | None:
    """Return the id of the account with this verified address, or None for none. Raises AccountNotFound."""
    if email is None:
        return None
    found = retry_until_deadline(User.objects.by_verified_email(email).values_list("id", flat=True).first)
    if found is None:
        raise AccountNotFound
    return found
