"""Wallets, to look at."""

from typing import Any, Final

import orjson
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from wallets.admin.actions import WalletActions
from wallets.admin.lists import COLOURS, CurrencyFilter, link, parse_id, show_amount, show_time
from wallets.admin.operations import of_wallet
from wallets.models import Operation, User, Wallet, WalletChange

NEWEST: Final = 20  # operations and changes on a wallet's page
MAX_OWNERS: Final = 100  # users whose wallets one search looks through


@admin.register(Wallet)
class WalletAdmin(WalletActions):
    list_display = (
        "shown_id",
        "shown_label",
        "owner",
        "currency",
        "shown_balance",
        "shown_held",
        "shown_available",
        "shown_status",
    )
    list_filter = (("status", ChoicesDropdownFilter), CurrencyFilter)
    list_select_related = ("owner",)
    search_fields = ("id",)  # makes the search box; what it does is get_search_results
    search_help_text = "Id, or the start of a label or owner"
    fieldsets = (
        (None, {"fields": ("id", "label", "owner", "status")}),
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

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Wallet], search_term: str
    ) -> tuple[QuerySet[Wallet], bool]:
        """By id, label or owner: conditions on this table alone, so that each finds its index."""
        term = search_term.strip()
        if not term:
            return queryset, False
        owners = User.objects.filter(username__istartswith=term).values_list("id", flat=True)[:MAX_OWNERS]
        condition = Q(label__istartswith=term) | Q(owner__in=list(owners))
        if wanted := parse_id(term):
            condition |= Q(id=wanted)
        return queryset.filter(condition), False

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        wallet: Wallet = kwargs["obj"]
        if request.user.has_perm("wallets.view_operation"):
            context["operations"] = newest_operations(wallet)
            context["all_operations"] = f"{reverse('admin:wallets_operation_changelist')}?q={wallet.id}"
        if request.user.has_perm("wallets.view_walletchange"):
            context["changes"] = newest_changes(wallet)
        response: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return response

    @admin.display(description="id")
    def shown_id(self, wallet: Wallet) -> SafeString:
        return format_html('<span class="text-xs whitespace-nowrap">{}</span>', wallet.id)

    @admin.display(description="label")
    def shown_label(self, wallet: Wallet) -> str | None:
        return Truncator(wallet.label).chars(60) or None

    @admin.display(description="balance")
    def shown_balance(self, wallet: Wallet) -> str | None:
        return show_amount(wallet.balance, wallet.currency)

    @admin.display(description="held")
    def shown_held(self, wallet: Wallet) -> str | None:
        return show_amount(wallet.held, wallet.currency)

    @admin.display(description="available")
    def shown_available(self, wallet: Wallet) -> str | None:
        return show_amount(wallet.balance - wallet.held, wallet.currency)

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


# --- Tables of unfold's table component -------------------------------------------------------------
def newest_operations(wallet: Wallet) -> dict[str, Any]:
    operations = of_wallet(Operation.objects.all(), wallet.id).order_by("-created_at")[:NEWEST]
    return {
        "headers": ["created (UTC)", "type", "amount", "balance after", "status", "by", "description"],
        "rows": [
            [
                link(operation, show_time(operation.created_at)),
                operation.get_type_display(),
                show_amount(operation.amount, wallet.currency),
                show_amount(operation.balance_after, wallet.currency) or "-",
                operation.reason or operation.get_status_display(),
                operation.actor or "-",
                Truncator(operation.description).chars(80) or "-",
            ]
            for operation in operations
        ],
    }


def newest_changes(wallet: Wallet) -> dict[str, Any]:
    changes = WalletChange.objects.filter(wallet=wallet).order_by("-created_at")[:NEWEST]
    return {
        "headers": ["changed (UTC)", "what", "by", "why"],
        "rows": [
            [show_time(change.created_at), describe(change), change.actor or "-", change.reason or "-"]
            for change in changes
        ],
    }


def describe(change: WalletChange) -> str:
    """status: "ACTIVE" → "FROZEN"."""
    return "; ".join(
        f"{name}: {_short(before)} → {_short(after)}" for name, (before, after) in change.changes.items()
    )


def _short(value: Any) -> str:
    return Truncator(value if isinstance(value, str) else orjson.dumps(value).decode()).chars(80)
