"""Read-only pages of wallets, with the actions of WalletActions."""

from typing import Any

import orjson
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from wallets.admin import search
from wallets.admin.actions import WalletActions
from wallets.admin.export import ExportedAdmin
from wallets.admin.lists import COLOURS, CurrencyFilter, Section, link, show_amount, show_time
from wallets.admin.search import Matches
from wallets.admin.wallet_rows import NEWEST_ROWS, OPERATION_HEADERS, operation_rows, optional_time
from wallets.chart import balance_chart
from wallets.contract.responses import wallet_body
from wallets.models import Hold, Operation, Wallet, WalletChange, WalletQuerySet


@admin.register(Wallet)
class WalletAdmin(ExportedAdmin, WalletActions):
    export_columns = (
        *("createdAt", "id", "externalId", "label", "owner", "currency", "balance", "held", "available"),
        *("overdraftLimit", "maxBalance", "status", "sequence", "updatedAt", "metadata"),
    )
    list_display = (
        "shown_id",
        "shown_label",
        "shown_external_id",
        "owner",
        "currency",
        "shown_balance",
        "shown_held",
        "shown_available",
        "shown_status",
    )
    list_filter = (("status", ChoicesDropdownFilter), CurrencyFilter)
    list_select_related = ("owner",)
    search_help_text = (
        f"an external id, an id or its first {search.MIN_ID_DIGITS} digits, metadata such as shop=7,"
        " or the start of a label or of an owner's name or e-mail address"
    )
    fieldsets = (
        (None, {"fields": ("id", "label", "external_id", "owner", "status")}),
        (
            "Money",
            {
                "fields": (
                    "currency",
                    "shown_balance",
                    "shown_held",
                    "shown_available",
                    "shown_overdraft_limit",
                    "shown_max_balance",
                    "sequence",
                )
            },
        ),
        ("More", {"fields": ("metadata", "opened_with", "created", "updated")}),
    )

    def find(self, term: str) -> Matches:
        return search.find_wallets(term)

    def export_row(self, row: Wallet) -> dict[str, Any]:
        return wallet_body(row) | {"owner": row.owner.get_username() if row.owner else ""}

    def sections(self, request: HttpRequest, row: Wallet) -> list[Section]:
        query = f"?q={row.id}"
        sections = []
        if request.user.has_perm("wallets.view_hold"):
            url = reverse("admin:wallets_hold_changelist") + query
            sections.append(active_holds(row, "All holds of this wallet", url))
        if request.user.has_perm("wallets.view_operation"):
            url = reverse("admin:wallets_operation_changelist") + query
            sections.append(newest_operations(row, "All operations of this wallet", url))
        if request.user.has_perm("wallets.view_walletchange"):
            sections.append(newest_changes(row))
        return sections

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        if request.user.has_perm("wallets.view_operation"):
            context["chart"] = balance_chart(kwargs["obj"], timezone.now())
        response: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return response

    def get_queryset(self, request: HttpRequest) -> QuerySet[Wallet]:
        rows: WalletQuerySet = super().get_queryset(request)
        return rows.with_expired()

    @admin.display(description="id")
    def shown_id(self, wallet: Wallet) -> SafeString:
        return format_html('<span class="text-xs whitespace-nowrap">{}</span>', wallet.id)

    @admin.display(description="label")
    def shown_label(self, wallet: Wallet) -> str | None:
        return Truncator(wallet.label).chars(60) or None

    @admin.display(description="external id")
    def shown_external_id(self, wallet: Wallet) -> str | None:
        return Truncator(wallet.external_id or "").chars(60) or None

    @admin.display(description="balance")
    def shown_balance(self, wallet: Wallet) -> str | None:
        return show_amount(wallet.balance, wallet.currency)

    @admin.display(description="held")
    def shown_held(self, wallet: Wallet) -> str | None:
        return show_amount(wallet.held_now, wallet.currency)

    @admin.display(description="available")
    def shown_available(self, wallet: Wallet) -> str | None:
        return show_amount(wallet.available_now, wallet.currency)

    @admin.display(description="overdraft limit")
    def shown_overdraft_limit(self, wallet: Wallet) -> str | None:
        return show_amount(wallet.overdraft_limit, wallet.currency)

    @admin.display(description="maximum balance")
    def shown_max_balance(self, wallet: Wallet) -> str | None:
        return show_amount(wallet.max_balance, wallet.currency)

    @display(description="status", label=COLOURS)  # type: ignore[untyped-decorator]
    def shown_status(self, wallet: Wallet) -> str:
        return wallet.status

    @admin.display(description="created (UTC)")
    def created(self, wallet: Wallet) -> SafeString:
        return show_time(wallet.created_at)

    @admin.display(description="updated (UTC)")
    def updated(self, wallet: Wallet) -> SafeString:
        return show_time(wallet.updated_at)


# --- Sections ---------------------------------------------------------------------------------------
def active_holds(wallet: Wallet, link_text: str, link_url: str) -> Section:
    """Read from the index of active holds: a wallet may have a million holds that have ended."""
    holds = Hold.objects.as_of_now(Hold.Status.ACTIVE).filter(wallet=wallet, status=Hold.Status.ACTIVE)
    rows = [
        [
            link(hold, show_time(hold.created_at)),
            show_amount(hold.amount, wallet.currency),
            optional_time(hold.expires_at) or "never",
            Truncator(hold.description).chars(80) or "-",
        ]
        for hold in holds.order_by("expires_at")[:NEWEST_ROWS]
    ]
    headers = ("created (UTC)", "amount", "expires (UTC)", "description")
    return Section("Active holds, by expiry", headers, rows, link_text, link_url)


def newest_operations(wallet: Wallet, link_text: str, link_url: str) -> Section:
    operations = Operation.objects.of_wallet(wallet.id).order_by("-created_at")[:NEWEST_ROWS]
    rows = operation_rows(operations, wallet.currency)
    return Section("Newest operations", OPERATION_HEADERS, rows, link_text, link_url)


def newest_changes(wallet: Wallet) -> Section:
    changes = WalletChange.objects.filter(wallet=wallet).order_by("-created_at")[:NEWEST_ROWS]
    rows = [
        [show_time(change.created_at), describe(change), change.actor or "-", change.reason or "-"]
        for change in changes
    ]
    return Section("Newest changes", ("changed (UTC)", "change", "by", "reason"), rows)


def describe(change: WalletChange) -> str:
    """Describe a change in one line, for example `status: ACTIVE → FROZEN`."""
    if change.type == WalletChange.Type.OPENED:
        return "opened"
    if change.type == WalletChange.Type.HOLD_EXPIRED:
        return f"hold {change.changes['hold_id']} expired"
    return "; ".join(
        f"{name}: {_short(before)} → {_short(after)}" for name, (before, after) in change.changes.items()
    )


def _short(value: Any) -> str:
    return Truncator(value if isinstance(value, str) else orjson.dumps(value).decode()).chars(80)
