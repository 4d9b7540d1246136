"""What an operator can do with a wallet: each asks for a reason and goes through the ledger."""

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

from wallets.admin.lists import LookOnly, address, show_amount
from wallets.contract.fields import PositiveAmount
from wallets.error_mapping import to_problem
from wallets.ledger import COMMANDS, WalletUpdate, change_wallet, submit
from wallets.models import Wallet
from wallets.problems import IdempotencyKeyReused, Problem, Unavailable

OFFERED: Final[dict[str, tuple[str, ...]]] = {
    Wallet.Status.ACTIVE: ("adjust", "freeze", "close"),
    Wallet.Status.FROZEN: ("thaw", "close"),
    Wallet.Status.CLOSED: (),
}
USED: Final = "This form was used before, for another adjustment. Look at the wallet before sending it again."
UNKNOWN: Final = "The database could not be reached in time. Send the form again: it counts once."
_AMOUNT: Final[TypeAdapter[Any]] = TypeAdapter(PositiveAmount)


# --- What is asked ----------------------------------------------------------------------------------
class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextareaWidget({"rows": 3}),
        help_text="Stays in the wallet's history, with your name.",
    )

    def refuse(self, problem: Problem) -> None:
        """Say why it was not done, at the field that is to blame."""
        for error in problem.errors:
            self.add_error(error.field if error.field in self.fields else None, error.detail)
        if not problem.errors:
            self.add_error(None, UNKNOWN if isinstance(problem, Unavailable) else problem.detail)


class AdjustForm(ReasonForm):
    direction = forms.ChoiceField(
        choices=[(kind, kind.capitalize()) for kind in COMMANDS], widget=UnfoldAdminRadioSelectWidget
    )
    amount = forms.CharField(
        widget=UnfoldAdminTextInputWidget({"inputmode": "decimal", "autocomplete": "off"}),
        help_text="Digits with at most one point, such as 115.60.",
    )
    # Made with the page: however often it is sent, by a double click or a reload, the money moves once.
    key = forms.UUIDField(initial=uuid4, widget=forms.HiddenInput)
    field_order = ("direction", "amount", "reason", "key")

    def clean_amount(self) -> Any:
        try:
            return _AMOUNT.validate_python(self.cleaned_data["amount"])
        except PydanticError as error:
            raise forms.ValidationError(error.errors()[0]["msg"]) from None

    def refuse(self, problem: Problem) -> None:
        used = isinstance(problem, IdempotencyKeyReused)
        super().refuse(Problem(USED) if used else problem)
        if used or problem.operation_id:
            # The ledger keeps a refusal under its key for ever: the corrected form asks for something new.
            self.data = {**self.data, "key": str(uuid4())}


# --- What is done -----------------------------------------------------------------------------------
# Takes the wallet, the filled form and the operator. Says what it did; None where that had been done before.
Deed = Callable[[UUID, dict[str, Any], str], str | None]


class AlreadySo(Exception):
    """The wallet has the status already: the button was clicked twice."""


def move_money(wallet_id: UUID, filled: dict[str, Any], operator: str) -> str | None:
    command = COMMANDS[filled["direction"]](
        wallet_id=wallet_id,
        amount=filled["amount"],
        key=str(filled["key"]),
        description=filled["reason"],
        actor=operator,
    )
    posted = submit(command)
    if posted.replayed:
        return None
    return f"{command.type.capitalize()} of {show_amount(command.amount, posted.currency)} {posted.currency}"


def change_status(status: str, wallet_id: UUID, filled: dict[str, Any], operator: str) -> str | None:
    def differs(wallet: Wallet) -> None:
        if wallet.status == status:
            raise AlreadySo

    try:
        change_wallet(
            wallet_id, WalletUpdate(status=status, actor=operator, reason=filled["reason"]), differs
        )
    except AlreadySo:
        return None
    return f"Status {status}"


# --- The pages --------------------------------------------------------------------------------------
class WalletActions(LookOnly):
    has_history = True
    actions_detail = ("adjust", "freeze", "thaw", "close")

    def has_adjust_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return self.has_view_permission(request) and request.user.has_perm("wallets.adjust_wallet")

    def has_change_status_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("wallets.change_wallet")

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """The buttons that this operator may press and that mean something for a wallet of this status."""
        wallet = self.get_object(request, unquote(object_id))
        offered = OFFERED[wallet.status] if wallet else ()
        return [button for button in super().get_actions_detail(request, object_id) if button.path in offered]

    @action(description="Adjust balance", permissions=["adjust"], variant=ActionVariant.PRIMARY)  # type: ignore[untyped-decorator]
    def adjust(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask(request, object_id, "Adjust balance", AdjustForm, move_money)

    @action(description="Freeze", permissions=["change_status"])  # type: ignore[untyped-decorator]
    def freeze(self, request: HttpRequest, object_id: str) -> HttpResponse:
        deed = partial(change_status, Wallet.Status.FROZEN)
        return self._ask(request, object_id, "Freeze wallet", ReasonForm, deed)

    @action(description="Thaw", permissions=["change_status"])  # type: ignore[untyped-decorator]
    def thaw(self, request: HttpRequest, object_id: str) -> HttpResponse:
        deed = partial(change_status, Wallet.Status.ACTIVE)
        return self._ask(request, object_id, "Thaw wallet", ReasonForm, deed)

    @action(description="Close for ever", permissions=["change_status"], variant=ActionVariant.DANGER)  # type: ignore[untyped-decorator]
    def close(self, request: HttpRequest, object_id: str) -> HttpResponse:
        deed = partial(change_status, Wallet.Status.CLOSED)
        return self._ask(request, object_id, "Close wallet for ever", ReasonForm, deed)

    def _ask(
        self, request: HttpRequest, object_id: str, title: str, form_class: type[ReasonForm], deed: Deed
    ) -> HttpResponse:
        """GET shows the form of one action; POST does the deed and goes back to the wallet's page."""
        wallet = self.get_object(request, unquote(object_id))
        if wallet is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
            return missing
        form = form_class(request.POST.dict() if request.method == "POST" else None)
        if form.is_valid():
            try:
                done = deed(wallet.id, form.cleaned_data, f"operator:{request.user.get_username()}")
            except (Problem, OperationalError) as error:
                form.refuse(to_problem(error))
            else:
                self._tell(request, wallet, done, form.cleaned_data["reason"])
                return redirect(address(wallet))
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "original": wallet,
            "available": show_amount(wallet.available_now, wallet.currency),
            "form": form,
            "wallet_page": address(wallet),
        }
        return TemplateResponse(request, "admin/wallets/wallet/ask.html", context)

    def _tell(self, request: HttpRequest, wallet: Wallet, done: str | None, reason: str) -> None:
        if done is None:
            messages.info(request, "That had been done already; it was not done again.")
            return
        self.log_change(request, wallet, f"{done}: {reason}")
        messages.success(request, f"{done}.")
