"""Forms of the pages: they validate without the ledger, and show errors in the user's language."""

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from functools import cache
from typing import Any, Final
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo, available_timezones

from django import forms
from django.conf import settings
from django.contrib.auth.forms import (
    AuthenticationForm,
    PasswordChangeForm,
    PasswordResetForm,
    SetPasswordForm,
)
from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from django.utils.translation import get_language, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from wallets import money
from wallets.access import attempts, mails, people
from wallets.models import User, Wallet
from wallets.operation_types import LABELS
from wallets.problems import Problem
from wallets.templatetags.people import amount as shown_amount

TOO_MANY: Final = _("Too many attempts. Wait a little and try again.")


class PageForm(forms.Form):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})
        for field in self.fields.values():
            if isinstance(field.widget, forms.PasswordInput):  # a longer password could not log in
                field.validators.append(MaxLengthValidator(people.MAX_PASSWORD))


# --- Accounts ---------------------------------------------------------------------------------------
class SignUpForm(PageForm):
    name = forms.CharField(
        label=_("Your name"),
        max_length=people.MAX_NAME,
        widget=forms.TextInput({"autocomplete": "name", "autofocus": True}),
    )
    email = forms.EmailField(
        label=_("E-mail address"),
        max_length=people.MAX_EMAIL,
        widget=forms.EmailInput({"autocomplete": "email"}),
    )
    password = forms.CharField(
        label=_("Password"),
        strip=False,
        widget=forms.PasswordInput({"autocomplete": "new-password"}),
        help_text=_("At least eight characters, not only digits, and not easy to guess."),
    )

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if not people.is_name(name):
            raise ValidationError(_("Use only printable characters."))
        return name

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"]
        if not people.is_email(email):
            raise ValidationError(_("Use only the letters a to z in the address."))
        return email

    def refuse(self, problem: Problem, message: str) -> None:
        """Show the problem at the field that caused it, or above the form."""
        for error in problem.errors:
            self.add_error(error.field, error.detail)
        if not problem.errors:
            self.add_error("email" if problem.code == "email_taken" else None, message)


class LogInForm(PageForm, attempts.CountedLogInForm):  # type: ignore[misc]
    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": _("The e-mail address or the password is wrong."),
    }

    def __init__(self, request: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.fields["username"].label = _("E-mail address")

    def error_text(self, problem: Problem) -> str:
        return str(TOO_MANY)


class ChangePasswordForm(PageForm, PasswordChangeForm):
    pass


class NewPasswordForm(PageForm, SetPasswordForm):  # type: ignore[type-arg]
    pass


class ForgottenForm(PageForm, PasswordResetForm):
    def save(self, *_: Any, **__: Any) -> None:
        """Send the mail in the background: the response time must not reveal whether the account exists."""
        email = self.cleaned_data["email"]
        mails.in_background(lambda: self._send(email))

    def _send(self, email: str) -> None:
        for user in self.get_users(email):
            uid, token = urlsafe_base64_encode(force_bytes(user.pk)), default_token_generator.make_token(user)
            mails.send(user, "forgotten", reverse("new_password", args=[uid, token]))

    def get_users(self, email: str) -> list[User]:
        """Find accounts with an index. Only ASCII is an address: no look-alike matches another account."""
        users = User.objects.by_email(email) if people.is_email(email) else User.objects.none()
        return [user for user in users.filter(is_active=True) if user.has_usable_password()]


# --- Transfers and history --------------------------------------------------------------------------
class TransferForm(PageForm):
    """A transfer from `wallet`. The key is created with the form: if it is sent twice, money moves once."""

    to = forms.CharField(
        label=_("To"),
        max_length=people.MAX_EMAIL,
        widget=forms.TextInput({"autocomplete": "off", "spellcheck": "false"}),
        help_text=_("An e-mail address or a wallet number."),
    )
    amount = forms.CharField(
        label=_("Amount"),
        max_length=40,
        widget=forms.TextInput({"inputmode": "decimal", "autocomplete": "off"}),
    )
    note = forms.CharField(
        label=_("Note"),
        max_length=200,
        required=False,
        widget=forms.TextInput({"autocomplete": "off"}),
        help_text=_("The recipient will see it."),
    )
    key = forms.UUIDField(initial=uuid4, widget=forms.HiddenInput)

    def __init__(self, wallet: Wallet, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wallet = wallet
        self.fields["amount"].label = _("Amount, %(currency)s") % {"currency": wallet.currency}

    def clean_to(self) -> UUID | str:
        """Return a wallet id, or an e-mail address."""
        text: str = self.cleaned_data["to"]
        if (wallet_id := parse_wallet_id(text)) is not None:
            if wallet_id == self.wallet.id:
                raise ValidationError(_("You cannot send money to the same wallet."))
            return wallet_id
        if not people.is_email(text):
            raise ValidationError(_("Enter an e-mail address or a wallet number."))
        return text

    def clean_amount(self) -> Decimal:
        text = _without_spaces(self.cleaned_data["amount"]).removesuffix(self.wallet.currency)
        if get_language() == "ru":
            text = text.replace(",", ".")
        elif self._is_as_shown(text):
            text = text.replace(",", "")
        try:
            amount = money.parse(text)
        except ValueError:
            raise ValidationError(_("Enter an amount in digits, such as 115.60.")) from None
        if not amount:
            raise ValidationError(_("Enter an amount of more than zero."))
        if amount > settings.MAX_AMOUNT:
            limit = shown_amount(settings.MAX_AMOUNT, self.wallet.currency)
            raise ValidationError(_("Enter an amount of at most %(limit)s.") % {"limit": limit})
        if not money.fits(amount, self.wallet.currency):
            digits = money.FRACTION_DIGITS[self.wallet.currency]
            raise ValidationError(_("Enter at most %(digits)d digits after the point.") % {"digits": digits})
        return amount

    def _is_as_shown(self, text: str) -> bool:
        """Whether the text is an amount as the pages write it, such as 1,234.00.

        A comma in any other text is refused and not guessed: it may be meant as a decimal point.
        """
        try:
            amount = money.parse(text.replace(",", ""))
        except ValueError:
            return False
        return f"{text}{self.wallet.currency}" == _without_spaces(shown_amount(amount, self.wallet.currency))

    def renew_key(self) -> None:
        """Use a new key for the corrected form: the ledger has recorded the refusal under the old one."""
        # items() returns the last value of each field; the QueryDict itself contains lists.
        self.data = dict(self.data.items()) | {"key": str(uuid4())}


def _without_spaces(text: str) -> str:
    """Return the text without white space and apostrophes, which separate thousands in some languages."""
    return re.sub(r"[\s']", "", text)


def parse_wallet_id(text: str) -> UUID | None:
    try:
        return UUID(text) if len(text) == 36 else None  # noqa: PLR2004
    except ValueError:
        return None


class DayInput(forms.DateInput):
    """The browser's own date picker, which accepts only this format."""

    def __init__(self) -> None:
        super().__init__({"type": "date"}, format="%Y-%m-%d")


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


class HistoryForm(PageForm):
    """The filters of the history. Days are those of the time zone."""

    kind = forms.ChoiceField(
        label=_("Kind"),
        required=False,
        choices=[("", _("All")), *LABELS.items()],
    )
    since = forms.DateField(label=pgettext_lazy("date", "From"), required=False, widget=DayInput)
    until = forms.DateField(label=pgettext_lazy("date", "To"), required=False, widget=DayInput)
    # pages.js fills in the browser's time zone; without it the user can.
    zone = forms.CharField(
        label=_("Time zone"),
        required=False,
        max_length=60,
        widget=forms.TextInput({"placeholder": "UTC", "autocomplete": "off", "spellcheck": "false"}),
    )

    def clean_zone(self) -> tzinfo:
        """Return the time zone of the days; by default UTC."""
        name: str = self.cleaned_data["zone"]
        if not name:
            return UTC
        if name not in _zones():
            raise ValidationError(_("Enter a time zone such as Europe/Moscow."))
        return ZoneInfo(name)

    def clean_until(self) -> date | None:
        day: date | None = self.cleaned_data["until"]
        if day == date.max:
            raise ValidationError(_("Enter an earlier day."))
        return day

    @property
    def begin(self) -> datetime | None:
        """The start of the day `since`."""
        day = self.cleaned_data.get("since") if self.is_valid() else None
        return self._start_of(day) if day else None

    @property
    def end(self) -> datetime | None:
        """The end of the day `until`, exclusive."""
        day = self.cleaned_data.get("until") if self.is_valid() else None
        return self._start_of(day + timedelta(days=1)) if day else None

    @property
    def time_zone(self) -> tzinfo:
        return self.cleaned_data["zone"] if self.is_valid() else UTC

    def _start_of(self, day: date) -> datetime:
        """Return the first moment of the day in the user's time zone, in UTC."""
        try:
            return datetime.combine(day, time(), self.time_zone).astimezone(UTC)
        except OverflowError:  # before the year 1
            return datetime.min.replace(tzinfo=UTC)

    @property
    def filters(self) -> dict[str, Any]:
        kind = self.cleaned_data.get("kind") if self.is_valid() else None
        given = {"type": kind or None, "created_at__gte": self.begin, "created_at__lt": self.end}
        return {name: value for name, value in given.items() if value is not None}
