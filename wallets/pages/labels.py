"""What the pages say of operations and of refusals, in the reader's language."""

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
# Why something was refused, by the code of its problem.
REFUSALS: Final = {
    "forbidden": gettext_lazy("This form cannot be used any more. Open the page again and fill it in anew."),
    "not_found": gettext_lazy("There is nothing at this address."),
    "wallet_not_found": gettext_lazy("There is no such wallet."),
    "transfer_not_found": gettext_lazy("There is no such transfer."),
    "email_taken": gettext_lazy("An account with this e-mail address exists. Log in instead?"),
    "wallet_closed": gettext_lazy("One of the two wallets is closed. No money was moved."),
    "wallet_frozen": gettext_lazy("One of the two wallets is frozen. No money was moved."),
    "currency_mismatch": gettext_lazy("That wallet has another currency. No money was moved."),
    "insufficient_funds": gettext_lazy("You have less available than that. No money was moved."),
    "balance_limit_exceeded": gettext_lazy("That wallet may not hold so much. No money was moved."),
    "target_cannot_receive": gettext_lazy("That wallet cannot receive this amount. No money was moved."),
    "idempotency_key_reused": gettext_lazy(
        "This form was sent before, with other content. Look at your history before you send it again."
    ),
    "too_many_requests": gettext_lazy(
        "That was too much at once, and nothing was done. Wait a little and try again."
    ),
    "unavailable": gettext_lazy("We cannot be reached at the moment. Send the form again: it counts once."),
    "query_timeout": gettext_lazy("We cannot be reached at the moment. Send the form again: it counts once."),
}
UNKNOWN: Final = gettext_lazy("Something went wrong on our side. It has been noted.")
BAD: Final = gettext_lazy("That cannot be asked for.")


def told(problem: Problem) -> str:
    """Describe the problem in one or two sentences."""
    return str(REFUSALS.get(problem.code, UNKNOWN if problem.status >= 500 else BAD))  # noqa: PLR2004


def told_of(reason: str) -> str:
    """Why an operation in the history was refused."""
    return str(REFUSALS.get(reason) or _("Refused"))
