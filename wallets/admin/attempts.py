"""Forms to guess with, as the admin shows them: the password at the login, the codes of the second factor."""

from typing import Any

from django import forms
from django.http import HttpRequest
from unfold.forms import AuthenticationForm
from unfold.widgets import BASE_INPUT_CLASSES

from wallets.access import devices
from wallets.access.attempts import CountedForm, CountedLogInForm


class LoginForm(CountedLogInForm, AuthenticationForm):  # type: ignore[misc]
    pass


class CodeForm(CountedForm):
    """Asks for a code of the app or a recovery code."""

    code = forms.CharField(
        max_length=20,
        widget=forms.TextInput(
            {
                "autocapitalize": "none",
                "autocomplete": "one-time-code",
                "autofocus": "",
                "class": " ".join(BASE_INPUT_CLASSES),
                "spellcheck": "false",
            }
        ),
        help_text="The six digits that the app shows. Without your phone: one of your recovery codes.",
    )

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request

    def clean_code(self) -> str:
        return "".join(str(self.cleaned_data["code"]).split()).lower()

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean() or self.cleaned_data
        if "code" in cleaned:
            try:
                self.use(cleaned["code"])
            except devices.CodeRefused as refused:
                self.add_error("code", str(refused))
        return cleaned

    def use(self, code: str) -> None:
        self.device = devices.verify(self.request.user, code)  # type: ignore[arg-type]


class EnrolForm(CodeForm):
    """Asks for a code that proves that the app has the key."""

    def __init__(self, request: HttpRequest, key: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.key = key
        self.fields["code"].help_text = "The six digits that the app shows now."
        self.fields["code"].widget.attrs["inputmode"] = "numeric"

    def use(self, code: str) -> None:
        self.device, self.recovery_codes = devices.enrol(self.request, self.key, code)
