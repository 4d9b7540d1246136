"""Base and formatting of pages whose rows belong to a wallet."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from wallets.admin.lists import CurrencyFilter, ReadOnlyAdmin, link, no_wrap, parse_id, show_amount, show_time
from wallets.ledger import keys
from wallets.models import Operation, Wallet, subquery_of

NEWEST_ROWS: Final = 20  # in a table on the page of another row
OPERATION_HEADERS: Final = (
    "created (UTC)",
    "type",
    "amount",
    "balance after",
    "status",
    "by",
    "description",
)


class WalletRowAdmin(ReadOnlyAdmin):
    """Base of pages whose rows are found by their own id or by their wallet's id."""

    has_keys = True
    search_fields = ("id",)  # shows the search box; get_search_results does the search

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.select_related("wallet").defer("wallet__metadata", "wallet__opened_with")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Search with one condition that an index serves. An OR of them would read too many rows."""
        term, _, key = search_term.strip().partition(" ")
        if not term:
            return queryset, False
        searched_id = parse_id(term)
        if searched_id is None:
            messages.warning(request, f"“{term}” is not an id. Search for: {self.search_help_text}.")
            return queryset.none(), False
        if key and self.has_keys:
            stored_keys = _stored_keys(searched_id, key.strip())
            return queryset.filter(wallet=searched_id, idempotency_key__in=stored_keys), False
        if Wallet.objects.filter(id=searched_id).exists():
            return queryset.filter(wallet_id=subquery_of(searched_id)), False
        return queryset.filter(id=searched_id), False

    @admin.display(description="created (UTC)")
    def created(self, row: Any) -> SafeString:
        return show_time(row.created_at)

    @admin.display(description="idempotency key")
    def client_key(self, row: Any) -> str | None:
        return keys.as_sent(row.idempotency_key) if row.idempotency_key else None

    @admin.display(description="amount")
    def shown_amount(self, row: Any) -> SafeString:
        return amount_with_currency(row)

    @admin.display(description="wallet")
    def shown_wallet(self, row: Any) -> SafeString:
        return wallet_link(row.wallet)


def _stored_keys(wallet_id: UUID, key: str) -> list[str]:
    """Return `key` as stored for an unrestricted caller, and for one restricted to the wallet's owner."""
    owner_id = Wallet.objects.filter(id=wallet_id).values_list("owner_id", flat=True).first()
    return [key, keys.stored(keys.namespace_of_owner(owner_id), key)]


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
