"""Who did what here, who logged in from where, and who tried to. To look at; a lockout can be lifted."""

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
from wallets.admin.lists import LINK, LookOnly, TimeFilter, show_time
from wallets.admin.wallet_rows import optional_time
from wallets.models import User

MAX_SEARCHED_USERS: Final = 100  # whose rows one search looks through

# What the packages call their rows tells an operator nothing.
NAMES: Final = {
    LogEntry: ("entry of the audit trail", "audit trail"),
    AccessLog: ("login", "logins"),
    AccessAttempt: ("wrong passwords of an account", "wrong passwords"),
}
for _model, (_one, _many) in NAMES.items():
    _model._meta.verbose_name, _model._meta.verbose_name_plural = _one, _many
apps.get_app_config("axes").verbose_name = "Access"


@admin.register(LogEntry)
class LogEntryAdmin(LookOnly):
    ordering = ("-action_time", "-id")
    list_display = ("time", "operator", "kind", "thing", "what")
    list_filter = (("action_flag", ChoicesDropdownFilter), ("action_time", TimeFilter))
    list_select_related = ("user", "content_type")
    search_fields = ("id",)  # makes the search box; what it does is get_search_results
    search_help_text = "The start of an operator's name"
    fieldsets = ((None, {"fields": ("time", "operator", "kind", "thing", "what_exactly")}),)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[LogEntry], search_term: str
    ) -> tuple[QuerySet[LogEntry], bool]:
        if term := search_term.strip():
            queryset = queryset.filter(
                user__in=list(_named(term).values_list("id", flat=True)[:MAX_SEARCHED_USERS])
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

    @admin.display(description="thing")
    def thing(self, entry: LogEntry) -> str:
        """A link to it, where it is still there and has a page."""
        address = None if entry.is_deletion() else entry.get_admin_url()
        text = Truncator(entry.object_repr).chars(60)
        return format_html(LINK, address, text) if address else text

    @admin.display(description="what")
    def what(self, entry: LogEntry) -> str:
        return Truncator(self.what_exactly(entry)).chars(120)

    @admin.display(description="what")
    def what_exactly(self, entry: LogEntry) -> str:
        return entry.get_change_message() or entry.get_action_flag_display()


class OfClient(LookOnly):
    """What django-axes keeps: an account, and where it was logged in to from."""

    ordering = ("-attempt_time", "-id")
    search_fields = ("id",)  # makes the search box; what it does is get_search_results
    search_help_text = "The start of an account's name, or an address"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if is_address(term):
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
class LoginAdmin(OfClient):
    list_display = ("time", "account", "address", "logged_out", "path_info")
    list_filter = (("attempt_time", TimeFilter),)
    fieldsets = (
        (None, {"fields": ("time", "username", "address", "user_agent", "path_info", "logged_out")}),
    )

    def of_account(self, rows: QuerySet[Any], name: str) -> QuerySet[Any]:
        """By the names that there are: they have an index, beginnings have none."""
        return rows.filter(
            username__in=list(_named(name).values_list("username", flat=True)[:MAX_SEARCHED_USERS])
        )

    @admin.display(description="logged in (UTC)")
    def time(self, login: AccessLog) -> SafeString:
        return show_time(login.attempt_time)

    @admin.display(description="logged out (UTC)")
    def logged_out(self, login: AccessLog) -> SafeString | None:
        return optional_time(login.logout_time)


@admin.register(AccessAttempt)
class WrongPasswordsAdmin(OfClient):
    actions_detail = ("lift",)
    list_display = ("time", "account", "address", "times", "path_info")
    list_filter = (("attempt_time", TimeFilter),)
    fieldsets = ((None, {"fields": ("time", "username", "address", "times", "user_agent", "path_info")}),)

    def has_lift_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return self.has_view_permission(request) and request.user.has_perm("axes.delete_accessattempt")

    @action(description="Lift lockout", permissions=["lift"], variant=ActionVariant.PRIMARY)  # type: ignore[untyped-decorator]
    def lift(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """GET asks; POST forgets the wrong passwords for this account from this address."""
        attempt = self.get_object(request, object_id)
        if attempt is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            return missing
        told = f"{attempt.username or 'no account'} from {attempt.ip_address or 'this machine'}"
        if request.method != "POST":
            lines = (told, "Its wrong passwords are forgotten: it may try again at once.")
            return confirm.ask(self, request, attempt, "Lift lockout", lines)
        # Rows differ by browser; it is the account at the address that is locked.
        AccessAttempt.objects.filter(username=attempt.username, ip_address=attempt.ip_address).delete()
        owner = User.objects.filter(username__iexact=attempt.username).first() if attempt.username else None
        self.log_change(request, owner or attempt, f"Lifted the lockout of {told}")
        messages.success(request, f"Lifted: {told} may try again.")
        return redirect(reverse("admin:axes_accessattempt_changelist"))

    @admin.display(description="last (UTC)")
    def time(self, attempt: AccessAttempt) -> SafeString:
        return show_time(attempt.attempt_time)

    @admin.display(description="times")
    def times(self, attempt: AccessAttempt) -> int:
        return int(attempt.failures_since_start)


def _named(start: str) -> QuerySet[User]:
    return User.objects.filter(username__istartswith=start)


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
