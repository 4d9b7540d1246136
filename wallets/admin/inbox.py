"""What was accepted for later and waits, to look at: what is carried out next comes first."""

from datetime import timedelta
from typing import Any, Final

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from unfold.contrib.filters.admin import ChoicesDropdownFilter

from wallets.admin.lists import TimeFilter, address, link_to, parse_id, unbroken
from wallets.admin.operations import present
from wallets.admin.rows import OfWallet, operation_link, wallet_link
from wallets.models import Hold, InboxEntry, Operation

MAX_COUNTED: Final = 100_000  # entries; beyond, how many more is not worth a longer look


@admin.register(InboxEntry)
class InboxAdmin(OfWallet):
    ordering = ("position",)
    search_help_text = "Operation or wallet id, or wallet id and key"
    list_before_template = "admin/wallets/inboxentry/waiting.html"
    list_display = ("created", "waits", "type", "moved", "of", "target", "actor")
    list_filter = (("type", ChoicesDropdownFilter), ("created_at", TimeFilter))

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return super().changelist_view(request, {**(extra_context or {}), **waiting()})

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        links = present(obj, ("target", "hold", "reverses"), self)
        return [
            (None, {"fields": ("id", "wallet", "type", "moved", *links)}),
            ("Who, why and when", {"fields": ("actor", "description", "created", "waits")}),
            ("The client's", {"fields": ("client_key", "metadata")}),
        ]

    def _get_obj_does_not_exist_redirect(
        self, request: HttpRequest, opts: Any, object_id: str
    ) -> HttpResponse:
        """Who opens an entry that was carried out meanwhile is led to its operation."""
        entry_id = parse_id(object_id)
        if entry_id and (done := Operation.objects.filter(id=entry_id).first()):
            messages.info(request, "It has been carried out.")
            return redirect(address(done))
        missing: HttpResponse = super()._get_obj_does_not_exist_redirect(request, opts, object_id)
        return missing

    @admin.display(description="accepted (UTC)")
    def created(self, entry: InboxEntry) -> SafeString:
        return super().created(entry)

    @admin.display(description="waits")
    def waits(self, entry: InboxEntry) -> SafeString:
        return unbroken(age(entry))

    @admin.display(description="to")
    def target(self, entry: InboxEntry) -> SafeString | None:
        return wallet_link(entry.counterparty) if entry.counterparty else None

    @admin.display(description="hold")
    def hold(self, entry: InboxEntry) -> SafeString | None:
        return link_to(Hold, entry.hold_id, str(entry.hold_id)) if entry.hold_id else None

    @admin.display(description="reverses")
    def reverses(self, entry: InboxEntry) -> SafeString | None:
        if entry.reverses_id is None:
            return None
        return operation_link(Operation.objects.select_related("wallet").get(id=entry.reverses_id))


def waiting() -> dict[str, Any]:
    """How many wait, as far as it is worth counting, and for how long the oldest has."""
    entries = InboxEntry.objects.order_by("position")
    length = entries[:MAX_COUNTED].count()
    oldest = entries.first()
    return {
        "waiting": f"more than {MAX_COUNTED}" if length == MAX_COUNTED else length,
        "oldest": age(oldest) if oldest else None,
    }


def age(entry: InboxEntry) -> str:
    waited = max(timezone.now() - entry.created_at, timedelta(0))
    return f"{waited.seconds} s" if waited < timedelta(minutes=1) else timesince(entry.created_at)
