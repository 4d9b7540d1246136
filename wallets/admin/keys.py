"""API keys: view, create and revoke. A new key is shown once."""

from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import BooleanRadioFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from wallets.access import keys, rights
from wallets.admin import confirm
from wallets.admin.lists import COLOURS, ReadOnlyAdmin, TimeFilter, change_url, show_time
from wallets.admin.wallet_rows import optional_time
from wallets.models import ApiKey, User


class KeyForm(forms.Form):
    """A new API key. Its scopes cannot exceed the operator's own permissions."""

    name = forms.CharField(
        max_length=200, widget=UnfoldAdminTextInputWidget, help_text="The purpose of the key."
    )
    scopes = forms.MultipleChoiceField(widget=UnfoldAdminCheckboxSelectMultipleWidget)
    owner = forms.CharField(
        required=False,
        max_length=254,
        widget=UnfoldAdminTextInputWidget,
        help_text="A username, optional. If the owner is inactive, the key is refused.",
    )
    is_restricted = forms.BooleanField(
        label="Restricted",
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text="Restricted to the owner's wallets.",
    )
    expires_at = forms.DateTimeField(
        label="Expires (UTC)",
        required=False,
        widget=UnfoldAdminTextInputWidget({"type": "datetime-local"}),
    )

    def __init__(self, operator: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = rights.operator(operator).scopes
        allowed = [scope for scope in rights.SCOPES if scope in own or operator.is_superuser]
        self.fields["scopes"].choices = [(scope, scope) for scope in allowed]  # type: ignore[attr-defined]

    def clean_owner(self) -> User | None:
        name: str = self.cleaned_data["owner"]
        owner = User.objects.filter(username__iexact=name).first() if name else None
        if name and owner is None:
            raise forms.ValidationError("There is no such user.")
        return owner

    def clean_expires_at(self) -> datetime | None:
        time: datetime | None = self.cleaned_data["expires_at"]
        if time is not None and time <= timezone.now():
            raise forms.ValidationError("Must be in the future.")
        return time

    def clean(self) -> dict[str, Any]:
        if self.cleaned_data.get("is_restricted") and not self.cleaned_data.get("owner"):
            self.add_error("owner", "A restricted key needs an owner.")
        return self.cleaned_data


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    has_history = True
    ordering = ("-created_at", "-prefix")
    actions_list = ("make",)
    actions_detail = ("revoke",)
    list_display = ("prefix", "name", "owner", "restricted", "scopes_list", "status", "used", "created")
    list_filter = (("is_restricted_to_owner", BooleanRadioFilter), ("created_at", TimeFilter))
    list_select_related = ("owner",)
    search_fields = ("prefix", "name", "owner__username")
    search_help_text = "Prefix, or part of a name or owner"
    fieldsets = (
        (None, {"fields": ("prefix", "name", "owner", "restricted", "scopes_list", "status")}),
        ("When", {"fields": ("created", "expires", "revoked", "used")}),
    )

    def has_make_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return bool(request.user.has_perm("wallets.add_apikey"))

    def has_revoke_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return bool(request.user.has_perm("wallets.change_apikey"))

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        key = self.get_object(request, object_id)
        return super().get_actions_detail(request, object_id) if key and key.revoked_at is None else []

    @action(description="Create a key", permissions=["make"], variant=ActionVariant.PRIMARY)  # type: ignore[untyped-decorator]
    def make(self, request: HttpRequest) -> HttpResponse:
        """Show the form (GET), or create the key and show it once (POST)."""
        form = KeyForm(request.user, request.POST or None)  # type: ignore[arg-type]
        text = ""
        if form.is_valid():
            text = keys.new_text()
            key, _ = keys.make(text, **form.cleaned_data)
            self.log_addition(request, key, f"Created, with {', '.join(key.scopes)}")
        context = {
            **self.admin_site.each_context(request),
            "title": "Create a key",
            "opts": self.opts,
            "form": form,
            "key": text,
            "list_page": reverse("admin:wallets_apikey_changelist"),
        }
        return TemplateResponse(request, "admin/wallets/apikey/make.html", context)

    @action(description="Revoke permanently", permissions=["revoke"], variant=ActionVariant.DANGER)  # type: ignore[untyped-decorator]
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for confirmation (GET), or revoke and redirect to the key's page (POST)."""
        key = self.get_object(request, object_id)
        if key is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            return missing
        if request.method == "POST":
            if keys.revoke(key.prefix):
                self.log_change(request, key, "Revoked")
                messages.success(request, "Revoked. Within five seconds, every process refuses the key.")
            return redirect(change_url(key))
        lines = (
            key.name,
            f"wk_{key.prefix}_…",
            "The API refuses requests with this key from then on. This cannot be undone.",
        )
        return confirm.confirmation_page(self, request, key, "Revoke key", lines)

    @display(description="restricted", boolean=True)  # type: ignore[untyped-decorator]
    def restricted(self, key: ApiKey) -> bool:
        return key.is_restricted_to_owner

    @admin.display(description="scopes")
    def scopes_list(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @display(description="status", label=COLOURS)  # type: ignore[untyped-decorator]
    def status(self, key: ApiKey) -> str:
        if key.revoked_at is not None:
            return "REVOKED"
        return "EXPIRED" if key.expires_at is not None and key.expires_at <= timezone.now() else "ACTIVE"

    @admin.display(description="created (UTC)")
    def created(self, key: ApiKey) -> SafeString:
        return show_time(key.created_at)

    @admin.display(description="expires (UTC)")
    def expires(self, key: ApiKey) -> SafeString | None:
        return optional_time(key.expires_at)

    @admin.display(description="revoked (UTC)")
    def revoked(self, key: ApiKey) -> SafeString | None:
        return optional_time(key.revoked_at)

    @admin.display(description="last used (UTC)")
    def used(self, key: ApiKey) -> SafeString | None:
        return optional_time(key.last_used_at)
