"""Users and groups. Only superusers grant permissions: an operator who grants them could take all of them."""

from typing import Any

import django_otp.plugins.otp_static.admin
import django_otp.plugins.otp_totp.admin  # noqa: F401
from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from wallets.access import devices, verification
from wallets.admin import confirm
from wallets.admin.lists import change_url
from wallets.models import User

# Group has a page in the admin's theme below. The packages' pages of devices would show their secrets.
for _model in (Group, StaticDevice, TOTPDevice):
    admin.site.unregister(_model)


class SuperuserOnlyAdmin(ModelAdmin):  # type: ignore[misc]
    compressed_fields = False  # the lists of permissions need the width

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)


class UniqueNameForm(forms.ModelForm):  # type: ignore[type-arg]
    """Mixin: a username or e-mail address must differ from those of all other users, ignoring case."""

    def clean_username(self) -> str:
        return self._require_unused(self.cleaned_data["username"], "This name is taken.")

    def clean_email(self) -> str:
        return self._require_unused(self.cleaned_data["email"], "This e-mail address is taken.")

    def _require_unused(self, text: str, message: str) -> str:
        others = User.objects.exclude(pk=self.instance.pk)
        if text and others.filter(Q(username__iexact=text) | Q(email__iexact=text)).exists():
            raise forms.ValidationError(message)
        return text


class ChangeForm(UniqueNameForm, UserChangeForm):  # type: ignore[misc]
    def clean(self) -> dict[str, Any]:
        """Change the username with the e-mail address if the user logs in with the address."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        before, now = self.initial["email"], cleaned.get("email")
        if now and now != before and cleaned.get("username", "").lower() == before.lower():
            cleaned["username"] = now.lower()
        return cleaned


class CreationForm(UniqueNameForm, UserCreationForm):  # type: ignore[misc]
    pass


@admin.register(User)
class UserAdmin(DjangoUserAdmin, SuperuserOnlyAdmin):  # type: ignore[type-arg]
    form = ChangeForm
    add_form = CreationForm
    change_password_form = AdminPasswordChangeForm
    actions_detail = ("verify_email", "reset_second_factor")
    list_display = ("username", "email", "first_name", "last_name", "is_staff", "is_email_verified")
    readonly_fields = ("is_email_verified",)
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Personal info", {"fields": ("first_name", "last_name", "email", "is_email_verified")}),
        ("Permissions", {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")}),
        ("Important dates", {"fields": ("last_login", "date_joined")}),
    )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # the audit trail refers to users; an operator deactivates a user instead

    def has_reset_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return bool(request.user.is_superuser)

    @admin.display(description="e-mail verified", boolean=True)
    def is_email_verified(self, user: User) -> bool:
        return user.has_verified_email

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        user = self.get_object(request, object_id)
        allowed = set()
        if user and devices.is_enrolled(user):
            allowed.add("reset_second_factor")
        if user and user.email and not user.has_verified_email:
            allowed.add("verify_email")
        return [button for button in super().get_actions_detail(request, object_id) if button.path in allowed]

    @action(description="Verify e-mail", permissions=["reset"])  # type: ignore[untyped-decorator]
    def verify_email(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for confirmation (GET), or record the address as verified by the operator (POST)."""
        user = self.get_object(request, object_id)
        if user is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            return missing
        if request.method != "POST":
            lines = (user.email, "Money that is sent to this address will go to the wallets of this account.")
            return confirm.confirmation_page(self, request, user, "Verify e-mail", lines)
        if user.email and not user.has_verified_email and verification.verify(user):
            self.log_change(request, user, f"Verified the e-mail address {user.email}")
            messages.success(request, "Verified: money can be sent to this address.")
        return redirect(change_url(user))

    @action(description="Reset second factor", permissions=["reset"], variant=ActionVariant.DANGER)  # type: ignore[untyped-decorator]
    def reset_second_factor(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for confirmation (GET), or remove the user's second factor (POST).

        For an operator who has lost the phone and the recovery codes.
        """
        user = self.get_object(request, object_id)
        if user is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            return missing
        if request.method != "POST":
            lines = (
                user.get_username(),
                "The password alone will be enough to log in until the user sets up a new second factor.",
            )
            return confirm.confirmation_page(self, request, user, "Reset second factor", lines)
        if devices.remove(user):
            self.log_change(request, user, "Reset the second factor")
            messages.success(request, "Reset: the next login requires only the password.")
        return redirect(change_url(user))


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, SuperuserOnlyAdmin):
    pass
