"""Base and formatting of pages whose rows belong to a wallet."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from django.contrib import admin
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from wallets.admin import search
from wallets.admin.lists import CurrencyFilter, SearchedAdmin, link, no_wrap, show_amount, show_time
from wallets.contract.paging import IN_ORDER_OF_INDEX
from wallets.ledger import keys
from wallets.models import Operation, Wallet, subquery_of

NEWEST_ROWS: Final = 20  # in a table on the page of another row
MAX_SEARCHED_WALLETS: Final = 10  # a search returns rows of at most this many wallets
OPERATION_HEADERS: Final = (
    "created (UTC)",
    "type",
    "amount",
    "balance after",
    "status",
    "by",
    "description",
)


class WalletRowAdmin(SearchedAdmin):
    """Base of pages whose rows belong to a wallet. The search by a wallet finds all of its rows."""

    search_help_text = search.TERMS_HELP

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.select_related("wallet").defer("wallet__metadata", "wallet__opened_with")

    def matching(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> tuple[QuerySet[Any], bool]:
        """Filter for the rows that match the term, and the first rows of wallets that match it.

        If only one wallet matches, an index has its rows in the order of the list: all of them are returned.
        """
        found, wallets = self.find(term), search.wallets_of_term(term)
        if len(wallets.ids) == 1 and not found.ids:
            with connection.cursor() as cursor:  # in the transaction of the list
                cursor.execute(IN_ORDER_OF_INDEX)
            return rows.filter(wallet_id=subquery_of(*wallets.ids)), False
        found |= self._of_wallets(request, wallets)
        return rows.filter(id__in=found.ids), found.is_cut

    def _of_wallets(self, request: HttpRequest, wallets: search.Matches) -> search.Matches:
        """Find the first rows of these wallets, in the order of the list."""
        wallet_ids = sorted(wallets.ids, reverse=True)
        rows = self.get_queryset(request).order_by(*self.ordering)
        found = search.Matches(is_cut=wallets.is_cut or len(wallet_ids) > MAX_SEARCHED_WALLETS)
        for wallet_id in wallet_ids[:MAX_SEARCHED_WALLETS]:
            found |= search.look_up(rows.filter(wallet_id=subquery_of(wallet_id)))
        return found

    @admin.display(description="created (UTC)")
    def created(self, row: Any) -> SafeString:
        return show_time(row.created_at)

    @admin.display(description="idempotency key")
    def client_key(self, row: Any) -> str | None:
        return keys.as_sent(row.idempotency_key) if row.idempotency_key else None

    @admin.display(description="amount")
    def shown_amount(self, row: Any) -> SafeString:
        return amount_with_currency(row)

    @admin.display(description="reference")
    def shown_reference(self, row: Any) -> str | None:
        return Truncator(row.reference).chars(60) or None

    @admin.display(description="wallet")
    def shown_wallet(self, row: Any) -> SafeString:
        return wallet_link(row.wallet)


class WalletCurrencyFilter(CurrencyFilter):
    column = "wallet__currency"


# --- Formatting -------------------------------------------------------------------------------------
def amount_with_currency(row: Any) -> SafeString:
    currency = row.wallet.currency
    return no_wrap(f"{show_amount(row.amount, currency)} {currency}")


def wallet_link(wallet: Wallet) -> SafeString:
    end = str(wallet.id)[-12:]
    return link(wallet, Truncator(wallet.label).chars(30) or no_wrap(f"…{end}"))


def operation_link(operation: Operation) -> SafeString:
    currency = operation.wallet.currency
    return link(operation, f"{operation.type} of {show_amount(operation.amount, currency)} {currency}")


def optional_time(time: datetime | None) -> SafeString | None:
    return None if time is None else show_time(time)


def operation_rows(operations: Iterable[Operation], currency: str) -> list[list[Any]]:
    """Return the cells of each row, in the order of OPERATION_HEADERS."""
    return [
        [
            link(operation, show_time(operation.created_at)),
            operation.get_type_display(),
            show_amount(operation.amount, currency),
            show_amount(operation.balance_after, currency) or "-",
            operation.reason or operation.get_status_display(),
            operation.actor or "-",
            Truncator(operation.description).chars(80) or "-",
        ]
        for operation in operations
    ]
