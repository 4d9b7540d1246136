"""Actions of an operator on a wallet. Each requires a reason and is executed by the ledger."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from pydantic import TypeAdapter
from pydantic import ValidationError as PydanticError
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminRadioSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from wallets.admin.lists import SearchedAdmin, change_url, show_amount
from wallets.contract.fields import PositiveAmount
from wallets.error_mapping import to_problem
from wallets.ledger import COMMANDS, WalletUpdate, change_wallet, submit
from wallets.models import Wallet
from wallets.problems import IdempotencyKeyReused, Problem, Unavailable

ACTIONS_BY_STATUS: Final[dict[str, tuple[str, ...]]] = {
    Wallet.Status.ACTIVE: ("adjust", "freeze", "close"),
    Wallet.Status.FROZEN: ("thaw", "close"),
    Wallet.Status.CLOSED: (),
}
FORM_ALREADY_USED: Final = (
    "This form was used before, for another adjustment. Check the wallet before you send the form again."
)
OUTCOME_UNKNOWN: Final = "The database did not respond in time. Send the form again: it takes effect once."
_AMOUNT: Final[TypeAdapter[Any]] = TypeAdapter(PositiveAmount)


# --- Forms ------------------------------------------------------------------------------------------
class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextareaWidget({"rows": 3}),
        help_text="Stored in the wallet's history, with your name.",
    )

    def refuse(self, problem: Problem) -> None:
        """Show the problem at the field that caused it, or above the form."""
        for error in problem.errors:
            self.add_error(error.field if error.field in self.fields else None, error.detail)
        if not problem.errors:
            self.add_error(None, OUTCOME_UNKNOWN if isinstance(problem, Unavailable) else problem.detail)


class AdjustForm(ReasonForm):
    direction = forms.ChoiceField(
        choices=[(kind, kind.capitalize()) for kind in COMMANDS], widget=UnfoldAdminRadioSelectWidget
    )
    amount = forms.CharField(
        widget=UnfoldAdminTextInputWidget({"inputmode": "decimal", "autocomplete": "off"}),
        help_text="Digits with at most one point, such as 115.60.",
    )
    # The idempotency key is created with the page: a double click or a reload moves the money once.
    key = forms.UUIDField(initial=uuid4, widget=forms.HiddenInput)
    field_order = ("direction", "amount", "reason", "key")

    def clean_amount(self) -> Any:
        try:
            return _AMOUNT.validate_python(self.cleaned_data["amount"])
        except PydanticError as error:
            raise forms.ValidationError(error.errors()[0]["msg"]) from None

    def refuse(self, problem: Problem) -> None:
        is_key_used = isinstance(problem, IdempotencyKeyReused)
        super().refuse(Problem(FORM_ALREADY_USED) if is_key_used else problem)
        if is_key_used or problem.operation_id:
            # The ledger stores a refusal under its key. The corrected form is a new request with a new key.
            self.data = {**self.data, "key": str(uuid4())}


# --- Actions ----------------------------------------------------------------------------------------
# Parameters: the wallet's id, the cleaned form, the actor. Returns a summary of the change, or None if an
# earlier request had already made it.
WalletAction = Callable[[UUID, dict[str, Any], str], str | None]


class StatusUnchanged(Exception):
    """The wallet already has this status, for example after a double click."""


def adjust_balance(wallet_id: UUID, cleaned: dict[str, Any], actor: str) -> str | None:
    command = COMMANDS[cleaned["direction"]](
        wallet_id=wallet_id,
        amount=cleaned["amount"],
        key=str(cleaned["key"]),
        description=cleaned["reason"],
        actor=actor,
    )
    posted = submit(command)
    if posted.replayed:
        return None
    return f"{command.type.capitalize()} of {show_amount(command.amount, posted.currency)} {posted.currency}"


def change_status(status: str, wallet_id: UUID, cleaned: dict[str, Any], actor: str) -> str | None:
    def require_other_status(wallet: Wallet) -> None:
        if wallet.status == status:
            raise StatusUnchanged

    try:
        change_wallet(
            wallet_id,
            WalletUpdate(status=status, actor=actor, reason=cleaned["reason"]),
            require_other_status,
        )
    except StatusUnchanged:
        return None
    return f"Status {status}"


# --- Pages ------------------------------------------------------------------------------------------
class WalletActions(SearchedAdmin):
    has_history = True
    actions_detail = ("adjust", "freeze", "thaw", "close")

    def has_adjust_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return self.has_view_permission(request) and request.user.has_perm("wallets.adjust_wallet")

    def has_change_status_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("wallets.change_wallet")

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Return the buttons that the operator's permissions and the wallet's status allow."""
        wallet = self.get_object(request, unquote(object_id))
        allowed = ACTIONS_BY_STATUS[wallet.status] if wallet else ()
        return [button for button in super().get_actions_detail(request, object_id) if button.path in allowed]

    @action(description="Adjust balance", permissions=["adjust"], variant=ActionVariant.PRIMARY)  # type: ignore[untyped-decorator]
    def adjust(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._form_view(request, object_id, "Adjust balance", AdjustForm, adjust_balance)

    @action(description="Freeze", permissions=["change_status"])  # type: ignore[untyped-decorator]
    def freeze(self, request: HttpRequest, object_id: str) -> HttpResponse:
        execute = partial(change_status, Wallet.Status.FROZEN)
        return self._form_view(request, object_id, "Freeze wallet", ReasonForm, execute)

    @action(description="Thaw", permissions=["change_status"])  # type: ignore[untyped-decorator]
    def thaw(self, request: HttpRequest, object_id: str) -> HttpResponse:
        execute = partial(change_status, Wallet.Status.ACTIVE)
        return self._form_view(request, object_id, "Thaw wallet", ReasonForm, execute)

    @action(description="Close permanently", permissions=["change_status"], variant=ActionVariant.DANGER)  # type: ignore[untyped-decorator]
    def close(self, request: HttpRequest, object_id: str) -> HttpResponse:
        execute = partial(change_status, Wallet.Status.CLOSED)
        return self._form_view(request, object_id, "Close wallet permanently", ReasonForm, execute)

    def _form_view(
        self,
        request: HttpRequest,
        object_id: str,
        title: str,
        form_class: type[ReasonForm],
        execute: WalletAction,
    ) -> HttpResponse:
        """Show the form of an action (GET), or execute it and redirect to the wallet's page (POST)."""
        wallet = self.get_object(request, unquote(object_id))
        if wallet is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            return missing
        form = form_class(request.POST.dict() if request.method == "POST" else None)
        if form.is_valid():
            try:
                summary = execute(wallet.id, form.cleaned_data, f"operator:{request.user.get_username()}")
            except (Problem, OperationalError) as error:
                form.refuse(to_problem(error))
            else:
                self._report(request, wallet, summary, form.cleaned_data["reason"])
                return redirect(change_url(wallet))
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "original": wallet,
            "available": show_amount(wallet.available_now, wallet.currency),
            "form": form,
            "wallet_page": change_url(wallet),
        }
        return TemplateResponse(request, "admin/wallets/wallet/action.html", context)

    def _report(self, request: HttpRequest, wallet: Wallet, summary: str | None, reason: str) -> None:
        if summary is None:
            messages.info(request, "This was already done before. Nothing was changed.")
            return
        self.log_change(request, wallet, f"{summary}: {reason}")
        messages.success(request, f"{summary}.")
