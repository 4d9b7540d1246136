"""The ledger, to look at."""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from wallets.admin.lists import COLOURS, Section, TimeFilter, link_to, show_amount
from wallets.admin.wallet_rows import (
    NEWEST_ROWS,
    OPERATION_HEADERS,
    OfWallet,
    operation_link,
    operation_rows,
    optional_time,
    wallet_link,
)
from wallets.models import Hold, Operation, Transfer
from wallets.operation_types import TRANSFERS


@admin.register(Operation)
class OperationAdmin(OfWallet):
    search_help_text = "Operation or wallet id, or wallet id and key"
    list_display: tuple[str, ...] = ("created", "type", "moved", "balance", "outcome", "of", "actor")
    list_filter: tuple[Any, ...] = (
        ("status", ChoicesDropdownFilter),
        ("type", ChoicesDropdownFilter),
        ("created_at", TimeFilter),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Without the links that it does not have."""
        links = present(obj, ("transfer", "other_side", "hold", "reverses"), self)
        times = present(obj, ("accepted", "created", "expires"), self)
        return [
            (None, {"fields": ("id", "wallet", "type", "moved", "balance", "status", "reason", "sequence")}),
            *([("Belongs to", {"fields": links})] if links else []),
            ("Who, why and when", {"fields": ("actor", "description", *times)}),
            ("The client's", {"fields": ("client_key", "metadata")}),
            ("Evidence", {"fields": ("hashed",)}),
        ]

    def sections(self, request: HttpRequest, row: Operation) -> list[Section]:
        found = reversals_of(row)
        rows = operation_rows(found, row.wallet.currency)
        return [Section("What reversed it", OPERATION_HEADERS, rows)] if rows else []

    @admin.display(description="balance after")
    def balance(self, operation: Operation) -> str | None:
        return show_amount(operation.balance_after, operation.wallet.currency)

    @display(description="status", label=COLOURS)  # type: ignore[untyped-decorator]
    def outcome(self, operation: Operation) -> tuple[str, str]:
        """What gives the colour, and the text: of a rejection its reason."""
        return operation.status, operation.reason or operation.status

    @admin.display(description="hash of it and its predecessor")
    def hashed(self, operation: Operation) -> str:
        return bytes(operation.hash).hex()

    # --- Links --------------------------------------------------------------------------------------
    @admin.display(description="transfer")
    def transfer(self, operation: Operation) -> SafeString | None:
        """Its id is that of the operation on the source. A reversal of a transfer has two sides too."""
        if operation.type not in TRANSFERS or operation.transfer_id is None:
            return None
        return link_to(Transfer, operation.transfer_id, str(operation.transfer_id))

    @admin.display(description="other side")
    def other_side(self, operation: Operation) -> SafeString | None:
        if operation.transfer_id is None:
            return None
        sides = Operation.objects.filter(transfer_id=operation.transfer_id).select_related("wallet")
        for side in sides:
            if side.id != operation.id:
                return format_html("{} in {}", operation_link(side), wallet_link(side.wallet))
        return wallet_link(operation.counterparty) if operation.counterparty else None  # it was refused

    @admin.display(description="hold")
    def hold(self, operation: Operation) -> SafeString | None:
        is_placed = operation.type == "HOLD" and operation.status == Operation.Status.COMPLETED
        hold_id = operation.id if is_placed else operation.hold_id
        return link_to(Hold, hold_id, str(hold_id)) if hold_id else None

    @admin.display(description="reverses")
    def reverses(self, operation: Operation) -> SafeString | None:
        if operation.reverses_id is None:
            return None
        original = Operation.objects.select_related("wallet").filter(id=operation.reverses_id).first()
        return operation_link(original) if original else None

    # --- Times --------------------------------------------------------------------------------------
    @admin.display(description="accepted for later (UTC)")
    def accepted(self, operation: Operation) -> SafeString | None:
        return optional_time(operation.accepted_at)

    @admin.display(description="expires (UTC)")
    def expires(self, operation: Operation) -> SafeString | None:
        return optional_time(operation.expires_at)


def present(row: Any, names: Iterable[str], page: Any) -> list[str]:
    """The fields of a page that say something of this row."""
    return [name for name in names if row is not None and getattr(page, name)(row)]


def reversals_of(*operations: Operation) -> list[Operation]:
    """The newest of what took them back or tried to, each found in its wallet's index."""
    return [
        reversal
        for operation in operations
        for reversal in Operation.objects.select_related("wallet")
        .filter(wallet_id=operation.wallet_id, reverses_id=operation.id)
        .order_by("-created_at")[:NEWEST_ROWS]
    ]
