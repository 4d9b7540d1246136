"""Display texts of statuses and refusals, in the user's language."""

from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from wallets.models import Wallet
from wallets.problems import Problem

STATUSES: Final = {
    Wallet.Status.ACTIVE: pgettext_lazy("wallet", "Active"),
    Wallet.Status.FROZEN: pgettext_lazy("wallet", "Frozen"),
    Wallet.Status.CLOSED: pgettext_lazy("wallet", "Closed"),
}
# Texts by the code of the problem.
REFUSALS: Final = {
    "forbidden": gettext_lazy("This form has expired. Open the page again and fill in the form."),
    "not_found": gettext_lazy("This page does not exist."),
    "wallet_not_found": gettext_lazy("This wallet does not exist."),
    "transfer_not_found": gettext_lazy("This transfer does not exist."),
    "email_taken": gettext_lazy("An account with this e-mail address exists. Log in instead."),
    "wallet_closed": gettext_lazy("One of the two wallets is closed. No money was moved."),
    "wallet_frozen": gettext_lazy("One of the two wallets is frozen. No money was moved."),
    "currency_mismatch": gettext_lazy("The wallets have different currencies. No money was moved."),
    "insufficient_funds": gettext_lazy("The amount exceeds the available balance. No money was moved."),
    "balance_limit_exceeded": gettext_lazy(
        "The balance limit of the wallet would be exceeded. No money was moved."
    ),
    "target_cannot_receive": gettext_lazy("The recipient cannot receive this amount. No money was moved."),
    "idempotency_key_reused": gettext_lazy(
        "This form was sent before, with other content. Check your history before you send it again."
    ),
    "too_many_requests": gettext_lazy("Too many requests, nothing was done. Wait a little and try again."),
    "unavailable": gettext_lazy("The service is unavailable. Send the form again: it takes effect once."),
    "query_timeout": gettext_lazy("The service is unavailable. Send the form again: it takes effect once."),
}
INTERNAL_ERROR: Final = gettext_lazy("An error occurred on our side. It was logged.")
INVALID_REQUEST: Final = gettext_lazy("The request is invalid.")


def problem_text(problem: Problem) -> str:
    """Describe the problem in one or two sentences."""
    other = INTERNAL_ERROR if problem.status >= 500 else INVALID_REQUEST  # noqa: PLR2004
    return str(REFUSALS.get(problem.code, other))


def refusal_text(reason: str) -> str:
    """Describe why an operation was refused; `reason` is the code of a problem."""
    return str(REFUSALS.get(reason) or _("Refused"))
