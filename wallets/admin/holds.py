"""Read-only pages of holds, with their status as of now.

A hold that has expired is shown as EXPIRED, even before a worker has recorded the expiry.
"""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import display

from wallets.admin import search
from wallets.admin.export import ExportedAdmin
from wallets.admin.lists import COLOURS, Section, TimeFilter, link_by_id, show_amount
from wallets.admin.search import Matches
from wallets.admin.wallet_rows import (
    NEWEST_ROWS,
    OPERATION_HEADERS,
    WalletCurrencyFilter,
    WalletRowAdmin,
    operation_rows,
    optional_time,
)
from wallets.contract.responses import hold_body
from wallets.models import Hold, Operation


class StatusNowFilter(DropdownFilter):  # type: ignore[misc]
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        return Hold.Status.choices

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if (status := self.value()) is None:
            return queryset
        # The index covers the stored status, so the query names it too.
        stored = [status, Hold.Status.ACTIVE] if status == Hold.Status.EXPIRED else [status]
        return queryset.filter(status_now=status, status__in=stored)


@admin.register(Hold)
class HoldAdmin(ExportedAdmin, WalletRowAdmin):
    export_columns = (
        *("createdAt", "id", "walletId", "amount", "currency", "status", "capturedAmount", "operationId"),
        *("expiresAt", "endedAt", "reference", "description", "metadata"),
    )
    list_display = (
        "created",
        "shown_amount",
        "status_now",
        "captured",
        "expires",
        "shown_reference",
        "shown_wallet",
        "description",
    )
    list_filter = (StatusNowFilter, WalletCurrencyFilter, ("created_at", TimeFilter))
    fieldsets = (
        (None, {"fields": ("id", "wallet", "shown_amount", "status_now", "captured", "description")}),
        ("Client data", {"fields": ("reference", "metadata")}),
        ("When", {"fields": ("created", "expires", "ended")}),
    )

    def find(self, term: str) -> Matches:
        return search.find_holds(term)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: Any = super().get_queryset(request)
        now: QuerySet[Any] = rows.as_of_now()
        return now

    def export_row(self, row: Hold) -> dict[str, Any]:
        return hold_body(row, row.wallet.currency)

    def sections(self, request: HttpRequest, row: Hold) -> list[Section]:
        """Return the operations that placed or ended the hold, and those refused."""
        later = Operation.objects.filter(wallet_id=row.wallet_id, hold_id=row.id).order_by("-created_at")
        rows = operation_rows(
            [*later[:NEWEST_ROWS], *Operation.objects.filter(id=row.id)], row.wallet.currency
        )
        return [Section("Operations on this hold", OPERATION_HEADERS, rows)]

    @display(description="status", label=COLOURS)  # type: ignore[untyped-decorator]
    def status_now(self, hold: Any) -> str:
        status: str = hold.status_now
        return status

    @admin.display(description="captured")
    def captured(self, hold: Hold) -> SafeString | None:
        """Return the captured amount, linked to the capture."""
        if hold.captured_amount is None or hold.operation_id is None:
            return None
        amount = f"{show_amount(hold.captured_amount, hold.wallet.currency)} {hold.wallet.currency}"
        return link_by_id(Operation, hold.operation_id, amount)

    @admin.display(description="expires (UTC)")
    def expires(self, hold: Hold) -> SafeString | None:
        return optional_time(hold.expires_at)

    @admin.display(description="ended (UTC)")
    def ended(self, hold: Any) -> SafeString | None:
        return optional_time(hold.expires_at if hold.status_now == Hold.Status.EXPIRED else hold.ended_at)
