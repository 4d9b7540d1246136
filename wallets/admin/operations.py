"""The ledger, to look at."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from wallets.admin.lists import (
    COLOURS,
    LookOnly,
    TimeFilter,
    link,
    parse_id,
    show_amount,
    show_time,
    unbroken,
)
from wallets.models import Operation, Wallet

HOW_TO_SEARCH = "Operation or wallet id, or wallet id and key"


@admin.register(Operation)
class OperationAdmin(LookOnly):
    list_display = ("created", "type", "moved", "balance", "outcome", "of", "actor")
    list_filter = (
        ("status", ChoicesDropdownFilter),
        ("type", ChoicesDropdownFilter),
        ("created_at", TimeFilter),
    )
    search_fields = ("id",)  # makes the search box; what it does is get_search_results
    search_help_text = HOW_TO_SEARCH
    fieldsets = (
        (None, {"fields": ("id", "wallet", "type", "moved", "balance", "status", "reason")}),
        ("Who, why and when", {"fields": ("actor", "description", "created", "sequence")}),
        ("The client's", {"fields": ("idempotency_key", "metadata")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Operation]:
        rows: QuerySet[Operation] = super().get_queryset(request)
        return rows.select_related("wallet").defer("wallet__metadata", "wallet__opened_with")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Operation], search_term: str
    ) -> tuple[QuerySet[Operation], bool]:
        """By what an index leads to, each case with its own plain condition: an OR would read too much."""
        term, _, key = search_term.strip().partition(" ")
        if not term:
            return queryset, False
        wanted = parse_id(term)
        if wanted is None:
            messages.warning(request, f"{HOW_TO_SEARCH}, please: “{term}” is no id.")
            return queryset.none(), False
        if key:
            return queryset.filter(wallet=wanted, idempotency_key=key.strip()), False
        if Wallet.objects.filter(id=wanted).exists():
            return of_wallet(queryset, wanted), False
        return queryset.filter(id=wanted), False

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        # Nothing ever happens to an operation, so it has no history.
        context = {**(extra_context or {}), "show_history": False}
        response: HttpResponse = super().change_view(request, object_id, form_url, context)
        return response

    @admin.display(description="created (UTC)")
    def created(self, operation: Operation) -> SafeString:
        return show_time(operation.created_at)

    @admin.display(description="amount")
    def moved(self, operation: Operation) -> SafeString:
        currency = operation.wallet.currency
        return unbroken(f"{show_amount(operation.amount, currency)} {currency}")

    @admin.display(description="balance after")
    def balance(self, operation: Operation) -> str | None:
        return show_amount(operation.balance_after, operation.wallet.currency)

    @display(description="status", label=COLOURS)  # type: ignore[untyped-decorator]
    def outcome(self, operation: Operation) -> tuple[str, str]:
        """What gives the colour, and the text: of a rejection its reason."""
        return operation.status, operation.reason or operation.status

    @admin.display(description="wallet")
    def of(self, operation: Operation) -> SafeString:
        end = str(operation.wallet_id)[-12:]
        return link(operation.wallet, Truncator(operation.wallet.label).chars(30) or unbroken(f"…{end}"))


def of_wallet(operations: QuerySet[Operation], wallet_id: UUID) -> QuerySet[Operation]:
    """The operations of one wallet. A subquery, so that PostgreSQL plans as for any wallet.

    Knowing that this one has much of the table, it walks the newest of all wallets instead, and far: the
    wallet may have slept since.
    """
    return operations.filter(wallet_id=Wallet.objects.filter(id=wallet_id).values("id")[:1])
