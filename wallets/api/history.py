"""Views of a wallet's history: its balance at a time, and its statement."""

from collections.abc import Iterator
from typing import Final
from uuid import UUID

from django.http import StreamingHttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from wallets.access.authentication import principal
from wallets.access.rights import visible
from wallets.api.endpoint import Endpoint
from wallets.api.examples import STATEMENT_AS_CSV
from wallets.api.openapi import Declaration, media
from wallets.api.renderers import CSVRenderer, JSONRenderer
from wallets.contract import statements
from wallets.contract.paging import single
from wallets.contract.parsing import check
from wallets.contract.request_schemas import BalanceQuery, StatementQuery
from wallets.contract.responses import BalanceBody, StatementBody, balance_body
from wallets.ledger import balance_at, balance_now, read_wallet, statement
from wallets.problems import WalletNotFound

SEPARATORS: Final = {"comma": ",", "semicolon": ";"}


class WalletBalance(Endpoint):
    """/wallets/{id}/balance"""

    @Declaration("getBalance", query=BalanceQuery, response=BalanceBody, refusals=[WalletNotFound])
    def get(self, request: Request, wallet_id: UUID) -> Response:
        """Read a balance, now or at a past time.

        Exact for every time, including all operations up to it: the response waits for transactions in
        progress. Before the wallet's first operation the balance is zero; before the wallet was opened there
        is none.
        """
        at = check(BalanceQuery, single(request.query_params)).at
        _require_visible(request, wallet_id)
        balance = balance_now(wallet_id) if at is None else balance_at(wallet_id, at)
        return Response(balance_body(balance))


class WalletStatement(Endpoint):
    """/wallets/{id}/statement"""

    renderer_classes = [JSONRenderer, CSVRenderer]

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {"Vary": "Accept"}

    @Declaration(
        "getStatement",
        query=StatementQuery,
        response=StatementBody,
        further_responses=media(200, "text/csv", str, "answer as CSV", STATEMENT_AS_CSV),
        refusals=[WalletNotFound],
    )
    def get(self, request: Request, wallet_id: UUID) -> StreamingHttpResponse:
        """Read a statement.

        The operations that moved money at `from` or later and before `to`, oldest first, with the opening and
        the closing balance. JSON or CSV, by Accept; streamed, of any length. In CSV an amount that leaves the
        wallet is negative, and a text that a spreadsheet would take for a formula starts with '. `bom` and
        `separator` help spreadsheet programs that expect other forms of CSV.
        """
        query = check(StatementQuery, single(request.query_params))
        _require_visible(request, wallet_id)
        found = statement(wallet_id, query.from_, query.to)
        if request.accepted_renderer.media_type == CSVRenderer.media_type:
            name = f"statement-{wallet_id}-{found.begin.date()}-{found.end.date()}.csv"
            headers = {"Content-Disposition": f'attachment; filename="{name}"'}
            content = statements.as_csv(found, SEPARATORS[query.separator], with_bom=query.bom)
            return _streamed(request, content, "text/csv; charset=utf-8", headers)
        return _streamed(request, statements.as_json(found), "application/json", {})


def _require_visible(request: Request, wallet_id: UUID) -> None:
    if (
        principal(request).owner_restriction is not None
    ):  # otherwise an error would appear in the middle of the stream
        visible(principal(request), read_wallet(wallet_id))


def _streamed(
    request: Request, content: Iterator[bytes], content_type: str, headers: dict[str, str]
) -> StreamingHttpResponse:
    # A HEAD request must not read a million rows: generators read nothing before their first value.
    sent = iter(()) if request.method == "HEAD" else content
    return StreamingHttpResponse(sent, content_type=content_type, headers=headers)
