"""The audit trail, logins and wrong passwords: read-only, except that an operator can lift a lockout."""

from ipaddress import ip_address
from typing import Any, Final

from axes.models import AccessAttempt, AccessLog
from django.apps import apps
from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action
from unfold.enums import ActionVariant

from wallets.admin import confirm
from wallets.admin.lists import LINK, ReadOnlyAdmin, TimeFilter, show_time
from wallets.admin.wallet_rows import optional_time
from wallets.models import User

MAX_SEARCHED_USERS: Final = 100  # a search by name returns rows of at most this many users

# The packages' own names for these models mean nothing to an operator.
VERBOSE_NAMES: Final = {
    LogEntry: ("entry of the audit trail", "audit trail"),
    AccessLog: ("login", "logins"),
    AccessAttempt: ("wrong passwords of an account", "wrong passwords"),
}
for _model, (_singular, _plural) in VERBOSE_NAMES.items():
    _model._meta.verbose_name, _model._meta.verbose_name_plural = _singular, _plural
apps.get_app_config("axes").verbose_name = "Access"


@admin.register(LogEntry)
class LogEntryAdmin(ReadOnlyAdmin):
    ordering = ("-action_time", "-id")
    list_display = ("time", "operator", "kind", "target", "short_change")
    list_filter = (("action_flag", ChoicesDropdownFilter), ("action_time", TimeFilter))
    list_select_related = ("user", "content_type")
    search_fields = ("id",)  # shows the search box; get_search_results does the search
    search_help_text = "The start of an operator's name"
    fieldsets = ((None, {"fields": ("time", "operator", "kind", "target", "change")}),)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[LogEntry], search_term: str
    ) -> tuple[QuerySet[LogEntry], bool]:
        if term := search_term.strip():
            queryset = queryset.filter(
                user__in=list(_users_by_prefix(term).values_list("id", flat=True)[:MAX_SEARCHED_USERS])
            )
        return queryset, False

    @admin.display(description="time (UTC)")
    def time(self, entry: LogEntry) -> SafeString:
        return show_time(entry.action_time)

    @admin.display(description="operator")
    def operator(self, entry: LogEntry) -> str:
        return str(entry.user.get_username())

    @admin.display(description="kind")
    def kind(self, entry: LogEntry) -> str | None:
        return entry.content_type.name if entry.content_type else None

    @admin.display(description="object")
    def target(self, entry: LogEntry) -> str:
        """Return the object's name, linked to its page unless the object was deleted or has no page."""
        url = None if entry.is_deletion() else entry.get_admin_url()
        text = Truncator(entry.object_repr).chars(60)
        return format_html(LINK, url, text) if url else text

    @admin.display(description="change")
    def short_change(self, entry: LogEntry) -> str:
        return Truncator(self.change(entry)).chars(120)

    @admin.display(description="change")
    def change(self, entry: LogEntry) -> str:
        return entry.get_change_message() or entry.get_action_flag_display()


class AccessRowAdmin(ReadOnlyAdmin):
    """Base of the pages of django-axes rows: an account and the IP address of the client."""

    ordering = ("-attempt_time", "-id")
    search_fields = ("id",)  # shows the search box; get_search_results does the search
    search_help_text = "The start of an account's name, or an IP address"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if is_ip_address(term):
            return queryset.filter(ip_address=term), False
        return self.of_account(queryset, term), False

    def of_account(self, rows: QuerySet[Any], name: str) -> QuerySet[Any]:
        return rows.filter(username__istartswith=name)

    @admin.display(description="account")
    def account(self, row: Any) -> str | None:
        return Truncator(row.username or "").chars(60) or None

    @admin.display(description="address")
    def address(self, row: Any) -> str | None:
        return row.ip_address or None


@admin.register(AccessLog)
class LoginAdmin(AccessRowAdmin):
    list_display = ("time", "account", "address", "logged_out", "path_info")
    list_filter = (("attempt_time", TimeFilter),)
    fieldsets = (
        (None, {"fields": ("time", "username", "address", "user_agent", "path_info", "logged_out")}),
    )

    def of_account(self, rows: QuerySet[Any], name: str) -> QuerySet[Any]:
        """Filter by the full names of matching users: an index serves full names, but no prefixes."""
        return rows.filter(
            username__in=list(_users_by_prefix(name).values_list("username", flat=True)[:MAX_SEARCHED_USERS])
        )

    @admin.display(description="logged in (UTC)")
    def time(self, login: AccessLog) -> SafeString:
        return show_time(login.attempt_time)

    @admin.display(description="logged out (UTC)")
    def logged_out(self, login: AccessLog) -> SafeString | None:
        return optional_time(login.logout_time)


@admin.register(AccessAttempt)
class WrongPasswordsAdmin(AccessRowAdmin):
    actions_detail = ("lift",)
    list_display = ("time", "account", "address", "attempts", "path_info")
    list_filter = (("attempt_time", TimeFilter),)
    fieldsets = ((None, {"fields": ("time", "username", "address", "attempts", "user_agent", "path_info")}),)

    def has_lift_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return self.has_view_permission(request) and request.user.has_perm("axes.delete_accessattempt")

    @action(description="Lift lockout", permissions=["lift"], variant=ActionVariant.PRIMARY)  # type: ignore[untyped-decorator]
    def lift(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for confirmation (GET), or delete the account's wrong passwords from this address (POST)."""
        attempt = self.get_object(request, object_id)
        if attempt is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            return missing
        origin = f"{attempt.username or 'no account'} from {attempt.ip_address or 'this machine'}"
        if request.method != "POST":
            lines = (origin, "The wrong passwords are deleted. The next login is possible immediately.")
            return confirm.confirmation_page(self, request, attempt, "Lift lockout", lines)
        # There is a row for each browser, but the lockout applies to the account and the address.
        AccessAttempt.objects.filter(username=attempt.username, ip_address=attempt.ip_address).delete()
        owner = User.objects.filter(username__iexact=attempt.username).first() if attempt.username else None
        self.log_change(request, owner or attempt, f"Lifted the lockout of {origin}")
        messages.success(request, f"Lifted the lockout of {origin}.")
        return redirect(reverse("admin:axes_accessattempt_changelist"))

    @admin.display(description="last attempt (UTC)")
    def time(self, attempt: AccessAttempt) -> SafeString:
        return show_time(attempt.attempt_time)

    @admin.display(description="attempts")
    def attempts(self, attempt: AccessAttempt) -> int:
        return int(attempt.failures_since_start)


def _users_by_prefix(prefix: str) -> QuerySet[User]:
    return User.objects.filter(username__istartswith=prefix)


def is_ip_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
