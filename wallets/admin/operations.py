"""Read-only pages of the ledger's operations."""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from wallets.admin import search
from wallets.admin.export import ExportedAdmin
from wallets.admin.lists import COLOURS, Section, TimeFilter, link_by_id, show_amount
from wallets.admin.search import Matches
from wallets.admin.wallet_rows import (
    NEWEST_ROWS,
    OPERATION_HEADERS,
    WalletRowAdmin,
    operation_link,
    operation_rows,
    optional_time,
    wallet_link,
)
from wallets.contract.responses import operation_body
from wallets.models import Hold, Operation, Transfer
from wallets.operation_types import TRANSFERS


@admin.register(Operation)
class OperationAdmin(ExportedAdmin, WalletRowAdmin):
    export_columns: tuple[str, ...] = (
        *(
            "createdAt",
            "id",
            "walletId",
            "operationType",
            "amount",
            "currency",
            "status",
            "reason",
            "balance",
        ),
        *("sequence", "transferId", "counterpartyWalletId", "holdId", "reversesId", "idempotencyKey"),
        *("reference", "description", "metadata", "actor"),
    )
    list_display: tuple[str, ...] = (
        "created",
        "type",
        "shown_amount",
        "balance",
        "outcome",
        "shown_reference",
        "shown_wallet",
        "actor",
    )
    list_filter: tuple[Any, ...] = (
        ("status", ChoicesDropdownFilter),
        ("type", ChoicesDropdownFilter),
        ("created_at", TimeFilter),
    )

    def find(self, term: str) -> Matches:
        return search.find_operations(term)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return the field sets without empty links and times."""
        links = nonempty_fields(obj, ("transfer", "other_side", "hold", "reverses"), self)
        times = nonempty_fields(obj, ("accepted", "created", "expires"), self)
        return [
            (
                None,
                {
                    "fields": (
                        "id",
                        "wallet",
                        "type",
                        "shown_amount",
                        "balance",
                        "status",
                        "reason",
                        "sequence",
                    )
                },
            ),
            *([("Related to", {"fields": links})] if links else []),
            ("Actor and times", {"fields": ("actor", "description", *times)}),
            ("Client data", {"fields": ("reference", "client_key", "metadata")}),
            ("Hash chain", {"fields": ("shown_hash",)}),
        ]

    def export_row(self, row: Operation) -> dict[str, Any]:
        return operation_body(row, row.wallet.currency) | {"actor": row.actor}

    def sections(self, request: HttpRequest, row: Operation) -> list[Section]:
        rows = operation_rows(newest_reversals(row), row.wallet.currency)
        return [Section("Reversals", OPERATION_HEADERS, rows)] if rows else []

    @admin.display(description="balance after")
    def balance(self, operation: Operation) -> str | None:
        return show_amount(operation.balance_after, operation.wallet.currency)

    @display(description="status", label=COLOURS)  # type: ignore[untyped-decorator]
    def outcome(self, operation: Operation) -> tuple[str, str]:
        """Return the status, which selects the colour, and the text: the reason of a rejection."""
        return operation.status, operation.reason or operation.status

    @admin.display(description="hash of the operation and its predecessor")
    def shown_hash(self, operation: Operation) -> str:
        return bytes(operation.hash).hex()

    # --- Links --------------------------------------------------------------------------------------
    @admin.display(description="transfer")
    def transfer(self, operation: Operation) -> SafeString | None:
        """Link to the transfer, whose id is the id of the operation on the source wallet.

        A reversal of a transfer has a `transfer_id` too, but is not a transfer.
        """
        if operation.type not in TRANSFERS or operation.transfer_id is None:
            return None
        return link_by_id(Transfer, operation.transfer_id, str(operation.transfer_id))

    @admin.display(description="other side")
    def other_side(self, operation: Operation) -> SafeString | None:
        if operation.transfer_id is None:
            return None
        sides = Operation.objects.filter(transfer_id=operation.transfer_id).select_related("wallet")
        for side in sides:
            if side.id != operation.id:
                return format_html("{} in {}", operation_link(side), wallet_link(side.wallet))
        # A refused transfer has no operation on the other wallet.
        return wallet_link(operation.counterparty) if operation.counterparty else None

    @admin.display(description="hold")
    def hold(self, operation: Operation) -> SafeString | None:
        is_placed = operation.type == "HOLD" and operation.status == Operation.Status.COMPLETED
        hold_id = operation.id if is_placed else operation.hold_id
        return link_by_id(Hold, hold_id, str(hold_id)) if hold_id else None

    @admin.display(description="reverses")
    def reverses(self, operation: Operation) -> SafeString | None:
        if operation.reverses_id is None:
            return None
        original = Operation.objects.select_related("wallet").filter(id=operation.reverses_id).first()
        return operation_link(original) if original else None

    # --- Times --------------------------------------------------------------------------------------
    @admin.display(description="accepted asynchronously (UTC)")
    def accepted(self, operation: Operation) -> SafeString | None:
        return optional_time(operation.accepted_at)

    @admin.display(description="expires (UTC)")
    def expires(self, operation: Operation) -> SafeString | None:
        return optional_time(operation.expires_at)


def nonempty_fields(row: Any, names: Iterable[str], model_admin: Any) -> list[str]:
    """Return those of the fields `names` that have a value for this row."""
    return [name for name in names if row is not None and getattr(model_admin, name)(row)]


def newest_reversals(*operations: Operation) -> list[Operation]:
    """Return the newest reversals of each operation, refused ones included, read from the wallet's index."""
    return [
        reversal
        for operation in operations
        for reversal in Operation.objects.select_related("wallet")
        .filter(wallet_id=operation.wallet_id, reverses_id=operation.id)
        .order_by("-created_at")[:NEWEST_ROWS]
    ]
