"""Pages of a user's wallet: balance, chart, history and statement."""

from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, QueryDict, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from wallets.access.people import main_wallet
from wallets.chart import balance_chart
from wallets.contract import statements
from wallets.contract.paging import Page
from wallets.contract.request_schemas import PageQuery
from wallets.contract.responses import etag
from wallets.database_retry import retry_until_deadline
from wallets.ledger import statement
from wallets.models import Operation, Wallet
from wallets.pages.access import own_wallet, user_of, user_page
from wallets.pages.forms import HistoryForm, TransferForm

PAGE_SIZE: Final = 20  # operations on a page
MAX_TABS: Final = 20  # wallets of the user


@require_safe
def home(request: HttpRequest) -> HttpResponseBase:
    if not request.user.is_authenticated:
        return render(request, "pages/welcome.html")
    return main_wallet_page(request)


@user_page
def main_wallet_page(request: HttpRequest) -> HttpResponse:
    wallet = main_wallet(user_of(request))
    return render(request, "pages/no_wallet.html") if wallet is None else _page(request, wallet)


@require_safe
@user_page
def wallet_by_id(request: HttpRequest, wallet_id: UUID) -> HttpResponse:
    return _page(request, own_wallet(request, wallet_id))


def _page(request: HttpRequest, wallet: Wallet) -> HttpResponse:
    form = HistoryForm(request.GET)
    operations, older = retry_until_deadline(lambda: _history(wallet, form, request.GET.get("cursor")))
    context = {
        "wallet": wallet,
        "tag": etag(wallet),
        "tabs": retry_until_deadline(lambda: _tabs(wallet)),
        "chart": retry_until_deadline(lambda: balance_chart(wallet, timezone.now())),
        "transfer": TransferForm(wallet),
        "history": form,
        "operations": operations,
        "older": older,
        "can_send_mail": settings.MAIL is not None,
        "filters": urlencode({name: request.GET.get(name, "") for name in form.fields}),
    }
    return render(request, "pages/wallet.html", context)


def _history(wallet: Wallet, form: HistoryForm, cursor: str | None) -> tuple[list[Operation], str | None]:
    rows = Operation.objects.of_wallet(wallet.id).filter(**form.filters)
    if "type" not in form.filters:
        rows = rows.that_move_money()
    parameters = {"limit": str(PAGE_SIZE)} | ({"cursor": cursor} if cursor else {})
    # A cursor belongs to one list name, so a cursor of other filters is refused.
    list_name = f"history of {wallet.id} {urlencode(form.filters)}"
    return Page(QueryDict(urlencode(parameters)), PageQuery, list_name).of(rows)


def _tabs(wallet: Wallet) -> list[Wallet]:
    """Return the owner's wallets if there are several."""
    wallets = Wallet.objects.filter(owner=wallet.owner_id).order_by("created_at", "id")[:MAX_TABS]
    return found if len(found := list(wallets)) > 1 else []


@require_safe
@user_page
def balance(request: HttpRequest, wallet_id: UUID) -> HttpResponse:
    """Return the balance, or 204 if the page already shows it. `seen` is the tag that the page has."""
    wallet = own_wallet(request, wallet_id)
    tag = etag(wallet)
    if request.GET.get("seen") == tag:
        return HttpResponse(status=204)
    context: dict[str, Any] = {"wallet": wallet, "tag": tag}
    response = render(request, "pages/balance.html", context)
    response["HX-Trigger"] = "balance-changed"
    return response


@require_safe
@user_page
def statement_csv(request: HttpRequest, wallet_id: UUID) -> StreamingHttpResponse:
    own_wallet(request, wallet_id)
    form = HistoryForm(request.GET)
    begin, end = form.begin, form.end
    if begin and end:
        begin = min(begin, end)  # days in the wrong order have no operations
    found = statement(wallet_id, begin, end)
    first, last = (moment.astimezone(form.time_zone).date() for moment in (found.begin, found.end))
    headers = {"Content-Disposition": f'attachment; filename="statement-{first}-{last}.csv"'}
    content = statements.as_csv(found, with_bom=True)
    return StreamingHttpResponse(content, content_type="text/csv; charset=utf-8", headers=headers)
