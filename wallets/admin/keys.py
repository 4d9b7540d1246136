"""API keys, to look at and to revoke. They are made by `manage.py create_api_key`, which shows them once."""

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import BooleanRadioFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from wallets.access import keys
from wallets.admin.lists import COLOURS, LookOnly, TimeFilter, address, show_time
from wallets.admin.rows import optional_time
from wallets.models import ApiKey


@admin.register(ApiKey)
class ApiKeyAdmin(LookOnly):
    has_history = True
    ordering = ("-created_at", "-prefix")
    actions_detail = ("revoke",)
    list_display = ("prefix", "name", "owner", "restricted", "may", "status", "used", "created")
    list_filter = (("is_restricted_to_owner", BooleanRadioFilter), ("created_at", TimeFilter))
    list_select_related = ("owner",)
    search_fields = ("prefix", "name", "owner__username")
    search_help_text = "Prefix, or part of a name or owner"
    fieldsets = (
        (None, {"fields": ("prefix", "name", "owner", "restricted", "may", "status")}),
        ("When", {"fields": ("created", "expires", "revoked", "used")}),
    )

    def has_revoke_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return bool(request.user.has_perm("wallets.change_apikey"))

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        key = self.get_object(request, object_id)
        return super().get_actions_detail(request, object_id) if key and key.revoked_at is None else []

    @action(description="Revoke for ever", permissions=["revoke"], variant=ActionVariant.DANGER)  # type: ignore[untyped-decorator]
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """GET asks; POST revokes and goes back to the key's page."""
        key = self.get_object(request, object_id)
        if key is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            return missing
        if request.method == "POST":
            if keys.revoke(key.prefix):
                self.log_change(request, key, "Revoked")
                messages.success(request, "Revoked: within five seconds nobody takes it any more.")
            return redirect(address(key))
        context = {
            **self.admin_site.each_context(request),
            "title": "Revoke key",
            "opts": self.opts,
            "original": key,
            "key_page": address(key),
        }
        return TemplateResponse(request, "admin/wallets/apikey/revoke.html", context)

    @display(description="restricted", boolean=True)  # type: ignore[untyped-decorator]
    def restricted(self, key: ApiKey) -> bool:
        return key.is_restricted_to_owner

    @admin.display(description="may")
    def may(self, key: ApiKey) -> str:
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
