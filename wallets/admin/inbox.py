"""The inbox: an operator retries or rejects entries that are set aside."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db import OperationalError, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timesince import timesince
from unfold.contrib.filters.admin import ChoicesDropdownFilter, DropdownFilter
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget

from wallets.admin import confirm, search
from wallets.admin.lists import TimeFilter, change_url, link_by_id, no_wrap
from wallets.admin.operations import nonempty_fields
from wallets.admin.search import Matches, parse_id
from wallets.admin.wallet_rows import WalletRowAdmin, operation_link, optional_time, wallet_link
from wallets.error_mapping import to_problem
from wallets.ledger import inbox_failures
from wallets.models import Hold, InboxEntry, Operation
from wallets.problems import Problem

MAX_COUNTED_ENTRIES: Final = 100_000  # a longer count would be slow and tell the operator no more
FAILURE_FIELDS: Final = ("attempts", "last_error", "next_attempt", "set_aside")
NOT_SET_ASIDE: Final = (
    "The entry is no longer set aside: it was retried or rejected meanwhile. Nothing was changed."
)
CANNOT_BE_REJECTED: Final = "The ledger cannot record the rejection, so the entry stays set aside. {}"


class StateFilter(DropdownFilter):  # type: ignore[misc]
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        return [("waiting", "Waiting"), ("set-aside", "Set aside")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() in ("waiting", "set-aside"):
            return queryset.filter(set_aside_at__isnull=self.value() == "waiting")
        return queryset


class CommentForm(forms.Form):
    comment = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextareaWidget({"rows": 3}),
        help_text="Stored in the audit trail, with your name. The client reads rejected_by_operator.",
    )


@admin.register(InboxEntry)
class InboxAdmin(WalletRowAdmin):
    actions_detail = ("retry", "reject")
    has_history = True
    ordering = ("position",)
    list_before_template = "admin/wallets/inboxentry/queue_status.html"
    list_display = (
        *("created", "waits", "type", "shown_amount", "shown_wallet", "target", "shown_reference", "actor"),
        *("attempts", "error", "set_aside"),
    )
    list_filter = (StateFilter, ("type", ChoicesDropdownFilter), ("created_at", TimeFilter))

    def find(self, term: str) -> Matches:
        return search.find_inbox_entries(term)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return super().changelist_view(request, {**(extra_context or {}), **queue_status()})

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        links = nonempty_fields(obj, ("target", "hold", "reverses"), self)
        return [
            (None, {"fields": ("id", "wallet", "type", "shown_amount", *links)}),
            ("Actor and times", {"fields": ("actor", "description", "created", "waits")}),
            ("Client data", {"fields": ("reference", "client_key", "metadata")}),
            *([("Failed attempts", {"fields": FAILURE_FIELDS})] if obj and obj.attempts else []),
        ]

    def _get_obj_does_not_exist_redirect(
        self, request: HttpRequest, opts: Any, object_id: str
    ) -> HttpResponse:
        """Redirect to the operation if the entry has been processed meanwhile."""
        entry_id = parse_id(object_id)
        if entry_id and (operation := Operation.objects.filter(id=entry_id).first()):
            messages.info(request, f"The entry has been processed: the operation is {operation.status}.")
            return redirect(change_url(operation))
        missing: HttpResponse = super()._get_obj_does_not_exist_redirect(request, opts, object_id)
        return missing

    # --- Actions ------------------------------------------------------------------------------------
    def has_decide_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Require the permission to adjust wallets: a decision on an entry can move money."""
        return self.has_view_permission(request) and request.user.has_perm("wallets.adjust_wallet")

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        entry = self.get_object(request, unquote(object_id))
        is_set_aside = entry is not None and entry.set_aside_at is not None
        return super().get_actions_detail(request, object_id) if is_set_aside else []

    @action(description="Retry", permissions=["decide"], variant=ActionVariant.PRIMARY)  # type: ignore[untyped-decorator]
    def retry(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for confirmation (GET), or let the workers try the entry again (POST)."""
        entry = self._set_aside_entry(request, object_id)
        if isinstance(entry, HttpResponse):
            return entry
        if request.method == "POST":
            return self._execute(request, entry, inbox_failures.retry, "Retried")
        lines = (
            f"{entry.type} {entry.id}, set aside after {entry.attempts} attempts",
            "The workers try it again before later entries of the same wallets.",
        )
        return confirm.confirmation_page(self, request, entry, "Retry", lines)

    @action(description="Reject", permissions=["decide"], variant=ActionVariant.DANGER)  # type: ignore[untyped-decorator]
    def reject(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for a comment (GET), or record the operation as REJECTED, which is final (POST)."""
        entry = self._set_aside_entry(request, object_id)
        if isinstance(entry, HttpResponse):
            return entry
        form = CommentForm(request.POST.dict() if request.method == "POST" else None)
        if form.is_valid():
            summary = f"Rejected: {form.cleaned_data['comment']}"
            return self._execute(request, entry, inbox_failures.reject, summary)
        context = {
            **self.admin_site.each_context(request),
            "title": "Reject",
            "opts": self.opts,
            "original": entry,
            "form": form,
            "back": change_url(entry),
        }
        return TemplateResponse(request, "admin/wallets/inboxentry/reject.html", context)

    def _set_aside_entry(self, request: HttpRequest, object_id: str) -> InboxEntry | HttpResponse:
        entry: InboxEntry | None = self.get_object(request, unquote(object_id))
        if entry is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            return missing
        if entry.set_aside_at is None:
            messages.warning(request, NOT_SET_ASIDE)
            return redirect(change_url(entry))
        return entry

    def _execute(
        self, request: HttpRequest, entry: InboxEntry, action: Callable[[UUID], None], summary: str
    ) -> HttpResponse:
        """Execute the action and record it in the audit trail, in one transaction."""
        try:
            with transaction.atomic():
                action(entry.id)
                self.log_change(request, entry, summary)
            messages.success(request, f"{summary}.")
        except inbox_failures.NotSetAside:
            messages.warning(request, NOT_SET_ASIDE)
        except inbox_failures.CannotBeRejected as error:
            messages.error(request, CANNOT_BE_REJECTED.format(error))
        except (Problem, OperationalError) as error:
            messages.error(request, to_problem(error).detail)
        return redirect(change_url(entry))

    # --- Columns and fields -------------------------------------------------------------------------
    @admin.display(description="error")
    def error(self, entry: InboxEntry) -> str | None:
        return Truncator(entry.last_error).chars(60) or None

    @admin.display(description="next attempt (UTC)")
    def next_attempt(self, entry: InboxEntry) -> SafeString | None:
        return None if entry.set_aside_at else optional_time(entry.next_attempt_at)

    @admin.display(description="set aside (UTC)")
    def set_aside(self, entry: InboxEntry) -> SafeString | None:
        return optional_time(entry.set_aside_at)

    @admin.display(description="accepted (UTC)")
    def created(self, entry: InboxEntry) -> SafeString:
        return super().created(entry)

    @admin.display(description="waiting time")
    def waits(self, entry: InboxEntry) -> SafeString:
        return no_wrap(waiting_time(entry))

    @admin.display(description="to")
    def target(self, entry: InboxEntry) -> SafeString | None:
        return wallet_link(entry.counterparty) if entry.counterparty else None

    @admin.display(description="hold")
    def hold(self, entry: InboxEntry) -> SafeString | None:
        return link_by_id(Hold, entry.hold_id, str(entry.hold_id)) if entry.hold_id else None

    @admin.display(description="reverses")
    def reverses(self, entry: InboxEntry) -> SafeString | None:
        if entry.reverses_id is None:
            return None
        original = Operation.objects.select_related("wallet").filter(id=entry.reverses_id).first()
        return operation_link(original) if original else no_wrap(str(entry.reverses_id))


def queue_status() -> dict[str, Any]:
    """Return the numbers of waiting and set-aside entries, and the waiting time of the oldest."""
    entries = InboxEntry.objects.filter(set_aside_at=None).order_by("position")
    oldest = entries.first()
    return {
        "waiting": _bounded_count(entries),
        "set_aside": _bounded_count(InboxEntry.objects.exclude(set_aside_at=None)),
        "oldest": waiting_time(oldest) if oldest else None,
    }


def _bounded_count(entries: QuerySet[InboxEntry]) -> str:
    count = entries[:MAX_COUNTED_ENTRIES].count()
    return f"more than {MAX_COUNTED_ENTRIES}" if count == MAX_COUNTED_ENTRIES else str(count)


def waiting_time(entry: InboxEntry) -> str:
    waited = max(timezone.now() - entry.created_at, timedelta(0))
    return f"{waited.seconds} s" if waited < timedelta(minutes=1) else timesince(entry.created_at)
