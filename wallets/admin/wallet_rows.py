"""What belongs to a wallet: how it is found, and how it looks in lists and tables."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from wallets.admin.lists import CurrencyFilter, LookOnly, link, parse_id, show_amount, show_time, unbroken
from wallets.ledger import keys
from wallets.models import Operation, Wallet, subquery_of

NEWEST_ROWS: Final = 20  # rows of a table on another row's page
OPERATION_HEADERS: Final = (
    "created (UTC)",
    "type",
    "amount",
    "balance after",
    "status",
    "by",
    "description",
)


class OfWallet(LookOnly):
    """Rows of wallets, found by their own id or by their wallet's."""

    has_keys = True
    search_fields = ("id",)  # makes the search box; what it does is get_search_results

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.select_related("wallet").defer("wallet__metadata", "wallet__opened_with")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """By what an index leads to, each case with its own plain condition: an OR would read too much."""
        term, _, key = search_term.strip().partition(" ")
        if not term:
            return queryset, False
        wanted = parse_id(term)
        if wanted is None:
            messages.warning(request, f"{self.search_help_text}, please: “{term}” is no id.")
            return queryset.none(), False
        if key and self.has_keys:
            forms = _stored_forms(wanted, key.strip())
            return queryset.filter(wallet=wanted, idempotency_key__in=forms), False
        if Wallet.objects.filter(id=wanted).exists():
            return queryset.filter(wallet_id=subquery_of(wanted)), False
        return queryset.filter(id=wanted), False

    @admin.display(description="created (UTC)")
    def created(self, row: Any) -> SafeString:
        return show_time(row.created_at)

    @admin.display(description="idempotency key")
    def client_key(self, row: Any) -> str | None:
        return keys.as_sent(row.idempotency_key) if row.idempotency_key else None

    @admin.display(description="amount")
    def moved(self, row: Any) -> SafeString:
        return amount_of(row)

    @admin.display(description="wallet")
    def of(self, row: Any) -> SafeString:
        return wallet_link(row.wallet)


def _stored_forms(wallet_id: UUID, key: str) -> list[str]:
    """The client's key as an unrestricted caller's, and as that of a caller restricted to the owner."""
    owner_id = Wallet.objects.filter(id=wallet_id).values_list("owner_id", flat=True).first()
    return [key, keys.stored(keys.namespace_of_owner(owner_id), key)]


class CurrencyOfWallet(CurrencyFilter):
    column = "wallet__currency"


# --- How they look ----------------------------------------------------------------------------------
def amount_of(row: Any) -> SafeString:
    currency = row.wallet.currency
    return unbroken(f"{show_amount(row.amount, currency)} {currency}")


def wallet_link(wallet: Wallet) -> SafeString:
    end = str(wallet.id)[-12:]
    return link(wallet, Truncator(wallet.label).chars(30) or unbroken(f"…{end}"))


def operation_link(operation: Operation) -> SafeString:
    currency = operation.wallet.currency
    return link(operation, f"{operation.type} of {show_amount(operation.amount, currency)} {currency}")


def optional_time(time: datetime | None) -> SafeString | None:
    return None if time is None else show_time(time)


def operation_rows(operations: Iterable[Operation], currency: str) -> list[list[Any]]:
    """The cells under OPERATION_HEADERS."""
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
