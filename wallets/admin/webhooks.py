"""Subscribers: view and manage webhooks; enable and disable the broker."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db import OperationalError
from django.db.models import Count, FloatField, OuterRef, QuerySet
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from pydantic import TypeAdapter
from pydantic import ValidationError as PydanticError
from unfold.contrib.filters.admin import BooleanRadioFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminTextInputWidget,
)

from wallets.admin import confirm
from wallets.admin.lists import ReadOnlyAdmin, Section, change_url, link_by_id, no_wrap, show_time
from wallets.admin.wallet_rows import NEWEST_ROWS, optional_time
from wallets.contract.request_schemas import (
    DEFAULT_FORMER_SECRET_HOURS,
    MAX_EVENTS_PER_REQUEST,
    MAX_FORMER_SECRET_HOURS,
    WebhookName,
    WebhookUrl,
)
from wallets.error_mapping import to_problem
from wallets.events import parking, webhook_registry
from wallets.events.cloudevents import TYPES
from wallets.events.delivery_state import LAG
from wallets.models import ParkedEvent, Subscriber, Wallet
from wallets.problems import IdempotencyKeyReused, Problem, WebhookNameTaken

COLOURS: Final = {"HEALTHY": "success", "FAILING": "warning", "DISABLED": "danger"}
BROKER_TARGET: Final = "the broker"
MAX_SECONDS_WITH_TENTHS: Final = 60  # a longer lag is shown in whole seconds
FORM_ALREADY_USED: Final = (
    "This form was used before, for another webhook. Check the list before you send the form again."
)


# --- Forms ------------------------------------------------------------------------------------------
def _validator(field_type: Any) -> Callable[[Any], Any]:
    """Return a function that validates a value as a field type of the API."""
    adapter: TypeAdapter[Any] = TypeAdapter(field_type)

    def validate(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except PydanticError as error:
            raise forms.ValidationError(error.errors()[0]["msg"]) from None

    return validate


_validate_name, _validate_url = _validator(WebhookName), _validator(WebhookUrl)


class WebhookForm(forms.Form):
    name = forms.CharField(
        max_length=100, widget=UnfoldAdminTextInputWidget, help_text="The purpose of the webhook."
    )
    url = forms.CharField(
        label="Address",
        strip=False,
        widget=UnfoldAdminTextInputWidget({"inputmode": "url"}),
        help_text="The service posts events to this URL, such as https://shop.example.com/wallet-events.",
    )
    types = forms.MultipleChoiceField(
        label="Events",
        required=False,
        choices=[(type, type) for type in TYPES],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="No selection: all types, including future ones.",
    )
    batch = forms.IntegerField(
        min_value=1,
        max_value=MAX_EVENTS_PER_REQUEST,
        initial=1,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="The maximum number of events in one request.",
    )

    def clean_name(self) -> Any:
        return _validate_name(self.cleaned_data["name"])

    def clean_url(self) -> Any:
        return _validate_url(self.cleaned_data["url"])

    def refuse(self, problem: Problem) -> None:
        """Show the problem at the name if the name is taken, otherwise above the form."""
        self.add_error("name" if isinstance(problem, WebhookNameTaken) else None, problem.detail)


class RegistrationForm(WebhookForm):
    begins = forms.ChoiceField(
        label="Start",
        choices=[("now", "Only new events"), ("beginning", "All events since the beginning")],
        initial="now",
        widget=UnfoldAdminRadioSelectWidget,
    )
    # The id is created with the page: a double click or a reload registers one webhook.
    id = forms.UUIDField(initial=uuid4, widget=forms.HiddenInput)

    def refuse(self, problem: Problem) -> None:
        is_id_used = isinstance(problem, IdempotencyKeyReused)
        super().refuse(Problem(FORM_ALREADY_USED) if is_id_used else problem)
        if is_id_used:
            self.data = {**self.data, "id": str(uuid4())}


class RotationForm(forms.Form):
    hours = forms.IntegerField(
        label="Hours",
        min_value=0,
        max_value=MAX_FORMER_SECRET_HOURS,
        initial=DEFAULT_FORMER_SECRET_HOURS,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="How long requests are also signed with the former secret. 0 if others may know it.",
    )
    id = forms.UUIDField(initial=uuid4, widget=forms.HiddenInput)

    def refuse(self, problem: Problem) -> None:
        self.add_error(None, problem.detail)


AnyForm = WebhookForm | RotationForm


# --- Pages ------------------------------------------------------------------------------------------
@admin.register(Subscriber)
class SubscriberAdmin(ReadOnlyAdmin):
    has_history = True
    ordering = ("name",)
    actions_list = ("register",)
    actions_detail = (
        *("edit", "send_test", "enable", "disable"),
        {"title": "More", "items": ["replay", "forget", "rotate", "remove"]},
    )
    list_display = ("name", "host", "short_types", "status", "lag", "parked", "dead", "delivered")
    list_filter = (("is_enabled", BooleanRadioFilter),)
    search_fields = ("name", "url")
    search_help_text = "Part of a name or address"
    fieldsets = (
        (None, {"fields": ("name", "destination", "all_types", "batch", "status", "disabled_because")}),
        ("Delivery state", {"fields": ("lag", "parked", "dead", "delivered")}),
        ("Failures", {"fields": ("failures", "failing", "last_error", "retry")}),
        ("When", {"fields": ("created", "former_until")}),
    )

    def has_register_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return bool(request.user.has_perm("wallets.add_subscriber"))

    def has_manage_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return bool(request.user.has_perm("wallets.change_subscriber"))

    def has_remove_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return bool(request.user.has_perm("wallets.delete_subscriber"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscriber]:
        rows: QuerySet[Subscriber] = super().get_queryset(request)
        lag = RawSQL(LAG, (), output_field=FloatField())  # noqa: S611 - a constant
        return rows.defer("secret", "former_secret").annotate(
            waiting=_count(ParkedEvent.Status.WAITING, Count("wallet_id", distinct=True)),
            given_up=_count(ParkedEvent.Status.DEAD, Count("id")),
            behind=lag,
        )

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Return the buttons that the operator's permissions and the state of the webhook allow."""
        row = self.get_object(request, unquote(object_id))
        allowed = _allowed_actions(row) if row else ()
        return [button for button in super().get_actions_detail(request, object_id) if button.path in allowed]

    def sections(self, request: HttpRequest, row: Subscriber) -> list[Section]:
        sections = [_deliveries(row)] if row.kind == Subscriber.Kind.WEBHOOK else []
        if row.waiting:  # type: ignore[attr-defined]
            sections.append(
                _parked("Parked wallets: first waiting event", parking.waiting(row).order_by("id"))
            )
        if row.given_up:  # type: ignore[attr-defined]
            sections.append(_parked("Dead letters, newest first", parking.dead(row).order_by("-id")))
        return sections

    # --- Actions ---
    @action(description="Register a webhook", permissions=["register"], variant=ActionVariant.PRIMARY)  # type: ignore[untyped-decorator]
    def register(self, request: HttpRequest) -> HttpResponse:
        """Show the form (GET), or register the webhook and show its secret once (POST)."""

        def execute(cleaned: dict[str, Any]) -> HttpResponse:
            registration = webhook_registry.Registration(**cleaned)
            registered = webhook_registry.register(registration, _actor(request))
            if not registered.replayed:
                self.log_addition(request, registered.webhook, f"Registered, for {_host(registration.url)}")
            return self._show_secret(request, registered.webhook, registered.secret)

        form = RegistrationForm(request.POST.dict() | _types(request) if request.method == "POST" else None)
        return self._form_view(request, None, "Register a webhook", form, execute)

    @action(description="Change", permissions=["manage"], variant=ActionVariant.PRIMARY)  # type: ignore[untyped-decorator]
    def edit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.get_object(request, unquote(object_id))
        if row is None or row.kind != Subscriber.Kind.WEBHOOK:
            return self._missing(request, object_id)

        def execute(cleaned: dict[str, Any]) -> HttpResponse:
            changes = {name: value for name, value in cleaned.items() if value != getattr(row, name)}
            if changes:
                webhook_registry.change(row.id, _actor(request), **changes)
                new_host = f", now for {_host(changes['url'])}" if "url" in changes else ""
                self.log_change(request, row, f"Changed {', '.join(changes)}{new_host}")
                messages.success(request, "Changed.")
            return redirect(change_url(row))

        data = request.POST.dict() | _types(request) if request.method == "POST" else None
        initial = {name: getattr(row, name) for name in ("name", "url", "types", "batch")}
        return self._form_view(request, row, "Change webhook", WebhookForm(data, initial=initial), execute)

    @action(description="Rotate secret", permissions=["manage"])  # type: ignore[untyped-decorator]
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask how long the former secret stays valid (GET), or show a new secret once (POST)."""
        row = self.get_object(request, unquote(object_id))
        if row is None or row.kind != Subscriber.Kind.WEBHOOK:
            return self._missing(request, object_id)

        def execute(cleaned: dict[str, Any]) -> HttpResponse:
            former_valid = timedelta(hours=cleaned["hours"])
            rotated = webhook_registry.rotate(
                row.id, _actor(request), rotation_id=cleaned["id"], former_valid=former_valid
            )
            if not rotated.replayed:
                self.log_change(
                    request, row, f"New secret; the former one is valid for {cleaned['hours']} hours"
                )
            return self._show_secret(request, rotated.webhook, rotated.secret)

        form = RotationForm(request.POST.dict() if request.method == "POST" else None)
        return self._form_view(request, row, "Rotate secret", form, execute)

    @action(description="Send a test", permissions=["manage"])  # type: ignore[untyped-decorator]
    def send_test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def execute(row: Subscriber) -> None:
            delivery = webhook_registry.try_out(row.id)
            duration = f"after {delivery.duration.total_seconds() * 1000:.0f} ms"
            if delivery.error:
                messages.error(request, f"Not accepted: {delivery.error}, {duration}.")
            else:
                messages.success(request, f"Accepted: status {delivery.status_code} {duration}.")
            self.log_change(request, row, "Sent a test")

        lines = (
            "The service posts an event of the type webhook.test at once. It reports no change of a wallet.",
        )
        return self._confirm(request, object_id, "Send a test", lines, execute)

    @action(description="Enable", permissions=["manage"], variant=ActionVariant.PRIMARY)  # type: ignore[untyped-decorator]
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        lines = ("Delivery continues from its position: the events since then are sent too.",)
        return self._confirm(
            request, object_id, "Enable", lines, self._switch_action(request, True), is_for_broker=True
        )

    @action(description="Disable", permissions=["manage"])  # type: ignore[untyped-decorator]
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        lines = ("No events are sent until it is enabled again. Then delivery continues from its position.",)
        return self._confirm(
            request, object_id, "Disable", lines, self._switch_action(request, False), is_for_broker=True
        )

    @action(description="Replay dead letters", permissions=["manage"])  # type: ignore[untyped-decorator]
    def replay(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def execute(row: Subscriber) -> None:
            if count := webhook_registry.replay(row.id, _actor(request)):
                self.log_change(request, row, f"Replayed {count} dead letters")
            messages.success(request, f"{count} dead letters will be sent again.")

        lines = ("All dead letters are sent again, those of a wallet in their order.",)
        return self._confirm(request, object_id, "Replay dead letters", lines, execute)

    @action(description="Delete dead letters", permissions=["manage"], variant=ActionVariant.DANGER)  # type: ignore[untyped-decorator]
    def forget(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def execute(row: Subscriber) -> None:
            if count := webhook_registry.forget(row.id, _actor(request)):
                self.log_change(request, row, f"Deleted {count} dead letters")
            messages.success(request, f"Deleted {count} dead letters.")

        lines = ("The webhook will never receive these events. This cannot be undone.",)
        return self._confirm(request, object_id, "Delete dead letters", lines, execute)

    @action(description="Remove", permissions=["remove"], variant=ActionVariant.DANGER)  # type: ignore[untyped-decorator]
    def remove(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def execute(row: Subscriber) -> None:
            webhook_registry.remove(row.id, _actor(request))
            self.log_deletions(request, [row])
            messages.success(request, f"Removed: {row.name} receives no more events.")

        lines = (
            "Its waiting events and dead letters are deleted. This cannot be undone: a new registration"
            " has another secret and another position.",
        )
        return self._confirm(request, object_id, "Remove webhook", lines, execute, next_url=_list_page())

    def _switch_action(self, request: HttpRequest, is_enabled: bool) -> Callable[[Subscriber], None]:
        def execute(row: Subscriber) -> None:
            if row.is_enabled == is_enabled:
                messages.info(request, "This was already done before. Nothing was changed.")
                return
            webhook_registry.switch(row, is_enabled, _actor(request))
            self.log_change(request, row, done := "Enabled" if is_enabled else "Disabled")
            messages.success(request, f"{done}.")

        return execute

    # --- Forms and confirmations ---
    def _form_view(
        self,
        request: HttpRequest,
        row: Subscriber | None,
        title: str,
        form: AnyForm,
        execute: Callable[[dict[str, Any]], HttpResponse],
    ) -> HttpResponse:
        """Show the form (GET), or execute the action and show its problem, if any, in the form (POST)."""
        if form.is_valid():
            try:
                return execute(form.cleaned_data)
            except (Problem, OperationalError) as error:
                form.refuse(to_problem(error))
        return self._form_page(request, row, title, form=form)

    def _show_secret(self, request: HttpRequest, row: Subscriber, secret: str | None) -> HttpResponse:
        if secret is None:
            messages.info(request, "This was already done before. The secret is not shown again.")
            return redirect(change_url(row))
        return self._form_page(request, row, "Secret", secret=secret)

    def _form_page(
        self, request: HttpRequest, row: Subscriber | None, title: str, **more: Any
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "original": row,
            "back": change_url(row) if row else _list_page(),
            **more,
        }
        return TemplateResponse(request, "admin/wallets/subscriber/form.html", context)

    def _confirm(  # noqa: PLR0913
        self,
        request: HttpRequest,
        object_id: str,
        title: str,
        lines: tuple[str, ...],
        execute: Callable[[Subscriber], None],
        *,
        is_for_broker: bool = False,
        next_url: str = "",
    ) -> HttpResponse:
        """Ask for confirmation (GET), or execute the action and redirect to the page (POST)."""
        row = self.get_object(request, unquote(object_id))
        if row is None or (row.kind != Subscriber.Kind.WEBHOOK and not is_for_broker):
            return self._missing(request, object_id)
        if request.method != "POST":
            return confirm.confirmation_page(self, request, row, title, (row.name, *lines))
        try:
            execute(row)
        except (Problem, OperationalError) as error:
            messages.error(request, to_problem(error).detail)
            return redirect(_list_page())
        return redirect(next_url or change_url(row))

    def _missing(self, request: HttpRequest, object_id: str) -> HttpResponse:
        missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        return missing

    # --- Columns and fields ---
    @admin.display(description="target")
    def destination(self, row: Subscriber) -> SafeString:
        return format_html('<span style="overflow-wrap: anywhere">{}</span>', row.url or BROKER_TARGET)

    @admin.display(description="target")
    def host(self, row: Subscriber) -> SafeString:
        return no_wrap(Truncator(_host(row.url)).chars(40) or BROKER_TARGET)

    @admin.display(description="events")
    def all_types(self, row: Subscriber) -> str:
        return ", ".join(row.types) or "all"

    @admin.display(description="events")
    def short_types(self, row: Subscriber) -> SafeString:
        return no_wrap(f"{len(row.types)} types" if len(row.types) > 1 else self.all_types(row))

    @display(description="status", label=COLOURS)  # type: ignore[untyped-decorator]
    def status(self, row: Subscriber) -> str:
        if not row.is_enabled:
            return "DISABLED"
        return "FAILING" if row.failures else "HEALTHY"

    @admin.display(description="lag")
    def lag(self, row: Any) -> SafeString:
        if row.behind < MAX_SECONDS_WITH_TENTHS:
            return no_wrap(f"{row.behind:.1f} s")
        return no_wrap(str(timedelta(seconds=round(row.behind))))

    @admin.display(description="parked wallets")
    def parked(self, row: Any) -> int:
        return int(row.waiting)

    @admin.display(description="dead letters")
    def dead(self, row: Any) -> int:
        return int(row.given_up)

    @admin.display(description="last accepted (UTC)")
    def delivered(self, row: Subscriber) -> SafeString | None:
        return optional_time(row.delivered_at)

    @admin.display(description="failing since (UTC)")
    def failing(self, row: Subscriber) -> SafeString | None:
        return optional_time(row.failing_since)

    @admin.display(description="next attempt (UTC)")
    def retry(self, row: Subscriber) -> SafeString | None:
        return optional_time(row.retry_at)

    @admin.display(description="created (UTC)")
    def created(self, row: Subscriber) -> SafeString:
        return show_time(row.created_at)

    @admin.display(description="former secret valid until (UTC)")
    def former_until(self, row: Subscriber) -> SafeString | None:
        return optional_time(row.former_secret_until)


def _allowed_actions(row: Any) -> tuple[str, ...]:
    switch = "disable" if row.is_enabled else "enable"
    if row.kind == Subscriber.Kind.BROKER:
        return (switch,)
    return ("edit", "send_test", switch, *(["replay", "forget"] if row.given_up else []), "rotate", "remove")


def _count(status: str, count: Count) -> Coalesce:
    of_row = ParkedEvent.objects.filter(subscriber=OuterRef("id"), status=status).values("subscriber")
    return Coalesce(of_row.annotate(count=count).values("count"), 0)


def _types(request: HttpRequest) -> dict[str, Any]:
    return {"types": request.POST.getlist("types")}


def _actor(request: HttpRequest) -> str:
    return f"operator:{request.user.get_username()}"


def _host(url: str) -> str:
    """Return the part of the URL that the audit trail may contain: the path may be a secret."""
    return urlsplit(url).netloc


def _list_page() -> str:
    return reverse("admin:wallets_subscriber_changelist")


# --- Sections ---------------------------------------------------------------------------------------
def _deliveries(row: Subscriber) -> Section:
    headers = ("sent (UTC)", "result", "duration", "events", "response", "first event")
    rows = [
        [
            show_time(delivery.at),
            Truncator(delivery.error).chars(60) or delivery.status_code,
            f"{delivery.duration.total_seconds() * 1000:.0f} ms",
            delivery.events,
            Truncator(delivery.response).chars(40) or "-",
            no_wrap(delivery.event_id),
        ]
        for delivery in webhook_registry.deliveries(row).order_by("-id")[:NEWEST_ROWS]
    ]
    return Section("Newest deliveries", headers, rows)


def _parked(title: str, events: QuerySet[ParkedEvent]) -> Section:
    headers = ("since (UTC)", "type", "wallet", "attempts", "next (UTC)", "error", "event")
    rows = [
        [
            show_time(event.created_at),
            event.type,
            link_by_id(Wallet, event.wallet_id, f"…{str(event.wallet_id)[-12:]}"),
            event.attempts,
            "never" if event.status == ParkedEvent.Status.DEAD else show_time(event.next_attempt_at),
            Truncator(event.last_error).chars(40) or "-",
            no_wrap(event.event_id),
        ]
        for event in events[:NEWEST_ROWS]
    ]
    return Section(title, headers, rows)
