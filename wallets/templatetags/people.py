"""Template filters that format amounts, times and operations."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from django import template
from django.utils.formats import date_format, number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString

from wallets import money
from wallets.models import Operation
from wallets.operation_types import INCOMING, LABELS
from wallets.pages import labels

register = template.Library()
MINUS = "−"
NO_BREAK = "\N{NO-BREAK SPACE}"


@register.filter
def amount(value: Decimal, currency: str) -> str:
    """Format the amount in the user's language, such as 1,000.00 RUB."""
    digits = money.FRACTION_DIGITS[currency]
    text = number_format(abs(value), digits, use_l10n=True, force_grouping=True)
    return f"{MINUS if value < 0 else ''}{text}{NO_BREAK}{currency}"


@register.filter
def moved(operation: Operation, currency: str) -> str:
    """Return the amount with the sign that it has for the wallet's owner."""
    if operation.sequence is None:
        return amount(operation.amount, currency)
    sign = "+" if operation.type in INCOMING else MINUS
    return f"{sign}{amount(operation.amount, currency)}"


@register.filter
def moment(value: datetime, detail: str = "both") -> SafeString:
    """Format the `time`, the `date` or `both` in UTC; pages.js converts it to local time."""
    form = {"time": "TIME_FORMAT", "date": "DATE_FORMAT", "both": "DATETIME_FORMAT"}[detail]
    text = f"{date_format(value, form)} UTC"
    return format_html('<time datetime="{}" data-detail="{}">{}</time>', value.isoformat(), detail, text)


@register.filter
def kind(operation: Operation) -> str:
    return str(LABELS[operation.type])


@register.filter
def why(operation: Operation) -> str:
    """Return the reason of a refusal, or an empty string."""
    return labels.refusal_text(operation.reason) if operation.reason else ""


@register.filter
def status(wallet: Any) -> str:
    return str(labels.STATUSES[wallet.status])
