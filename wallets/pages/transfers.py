"""Transfers: a form, a review and a receipt, each a page that works without scripts."""

from uuid import UUID

from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_safe

from wallets import ledger
from wallets.access import rights
from wallets.access.people import wallet_of
from wallets.error_mapping import to_problem
from wallets.ledger import PENDING, MakeTransfer, read_transfer
from wallets.models import Wallet
from wallets.pages.access import own_wallet, user_of, user_page
from wallets.pages.forms import TransferForm
from wallets.pages.labels import problem_text
from wallets.problems import (
    IdempotencyKeyReused,
    InsufficientFunds,
    Problem,
    TransferNotFound,
    WalletNotFound,
)


@require_http_methods(["GET", "HEAD", "POST"])
@user_page
def transfer(request: HttpRequest, wallet_id: UUID) -> HttpResponse:
    """Show the form, then a review (step=review), and send the transfer (step=send)."""
    wallet = own_wallet(request, wallet_id)
    form = TransferForm(wallet, request.POST or None)
    step = request.POST.get("step")
    sender = rights.person(user_of(request))
    target_id = _target(form, sender) if form.is_valid() else None
    if target_id is None or step == "edit":
        return _form_page(request, form)
    if step == "send":
        return _send(request, form, sender, target_id)
    if form.cleaned_data["amount"] > wallet.available_now + wallet.overdraft_limit:
        form.add_error("amount", problem_text(InsufficientFunds()))
        return _form_page(request, form)
    return render(
        request, "pages/transfer_review.html", {"form": form, "wallet": wallet, "target": target_id}
    )


def _form_page(request: HttpRequest, form: TransferForm, status: int = 200) -> HttpResponse:
    return render(request, "pages/transfer.html", {"form": form, "wallet": form.wallet}, status=status)


def _target(form: TransferForm, sender: rights.Principal) -> UUID | None:
    """Return the id of the target wallet; if there is none, add an error to the form."""
    to = form.cleaned_data["to"]
    if isinstance(to, UUID):
        return to
    try:
        found = wallet_of(to, form.wallet.id, sender, sender.stored_key(str(form.cleaned_data["key"])))
    except WalletNotFound:
        message = _("No verified account with this address has a wallet in %(currency)s.")
        form.add_error("to", message % {"currency": form.wallet.currency})
        return None
    if found == form.wallet.id:
        form.add_error("to", _("You cannot send money to the same wallet."))
        return None
    return found


def _send(
    request: HttpRequest, form: TransferForm, sender: rights.Principal, target_id: UUID
) -> HttpResponse:
    command = MakeTransfer(
        wallet_id=form.wallet.id,
        target_id=target_id,
        amount=form.cleaned_data["amount"],
        description=form.cleaned_data["note"],
        key=sender.stored_key(str(form.cleaned_data["key"])),
        **rights.command_fields(sender),
    )
    rights.require(sender, command)
    try:
        posted = ledger.submit(command)
    except (Problem, OperationalError) as error:
        problem = to_problem(error)
        form.add_error(None, problem_text(problem))
        if problem.operation_id or isinstance(problem, IdempotencyKeyReused):
            form.renew_key()
        return _form_page(request, form, problem.status)
    return redirect("transfer_by_id", transfer_id=posted.operation.id)


@require_safe
@user_page
def transfer_by_id(request: HttpRequest, transfer_id: UUID) -> HttpResponse:
    """Show the receipt to both sides."""
    user_id = user_of(request).pk
    found = read_transfer(transfer_id, user_id)
    if found is None or found.operation.status == PENDING:  # it may still be refused
        raise TransferNotFound
    own = Wallet.objects.filter(id=found.operation.wallet_id, owner=user_id).exists()
    context = {"transfer": found.operation, "currency": found.currency, "is_sender": own}
    return render(request, "pages/receipt.html", context)
