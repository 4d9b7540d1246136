"""Read-only pages of transfers: both sides on one page."""

from collections.abc import Iterable
from typing import Any, Final

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter

from wallets.admin import search
from wallets.admin.lists import Section, TimeFilter
from wallets.admin.operations import OperationAdmin, newest_reversals, nonempty_fields
from wallets.admin.search import Matches
from wallets.admin.wallet_rows import OPERATION_HEADERS, operation_rows, wallet_link
from wallets.models import Operation, Transfer

TRANSFER_HEADERS: Final = ("wallet", *OPERATION_HEADERS)


@admin.register(Transfer)
class TransferAdmin(OperationAdmin):
    export_columns = (
        *("createdAt", "id", "walletId", "counterpartyWalletId", "amount", "currency", "status", "reason"),
        *("idempotencyKey", "reference", "description", "metadata", "actor"),
    )
    list_display = ("created", "source", "target", "shown_amount", "outcome", "shown_reference", "actor")
    list_filter = (("status", ChoicesDropdownFilter), ("created_at", TimeFilter))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("wallets.view_operation"))

    def find(self, term: str) -> Matches:
        return search.find_transfers(term)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        transfers = super().get_queryset(request).filter(type="TRANSFER_OUT")
        with_target = transfers.select_related("counterparty")
        return with_target.defer("counterparty__metadata", "counterparty__opened_with")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        times = nonempty_fields(obj, ("accepted", "created"), self)
        return [
            (None, {"fields": ("id", "source", "target", "shown_amount", "status", "reason")}),
            ("Actor and times", {"fields": ("actor", "description", *times)}),
            ("Client data", {"fields": ("reference", "client_key", "metadata")}),
        ]

    def sections(self, request: HttpRequest, row: Operation) -> list[Section]:
        sides = list(Operation.objects.filter(transfer_id=row.id).select_related("wallet"))
        sides.sort(key=lambda side: side.id != row.id)  # the source first
        both = Section("Both sides", TRANSFER_HEADERS, _with_wallets(sides))
        reversals = _with_wallets(newest_reversals(*sides))
        return [both, Section("Reversals", TRANSFER_HEADERS, reversals)] if reversals else [both]

    @admin.display(description="from")
    def source(self, transfer: Transfer) -> SafeString:
        return wallet_link(transfer.wallet)

    @admin.display(description="to")
    def target(self, transfer: Transfer) -> SafeString | None:
        return wallet_link(transfer.counterparty) if transfer.counterparty else None


def _with_wallets(operations: Iterable[Operation]) -> list[list[Any]]:
    return [
        [wallet_link(operation.wallet), *row]
        for operation in operations
        for row in operation_rows([operation], operation.wallet.currency)
    ]
