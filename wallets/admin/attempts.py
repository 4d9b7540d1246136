"""Rate-limited forms of the admin: the password at the login, the codes of the second factor."""

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
    """Accepts a code of the authenticator app, or a recovery code."""

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
        help_text="The six digits in your authenticator app, or one of your recovery codes.",
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
                self.verify(cleaned["code"])
            except devices.CodeRefused as refused:
                self.add_error("code", str(refused))
        return cleaned

    def verify(self, code: str) -> None:
        self.device = devices.verify(self.request.user, code)  # type: ignore[arg-type]


class EnrolForm(CodeForm):
    """Accepts a code that proves that the authenticator app has the key."""

    def __init__(self, request: HttpRequest, key: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.key = key
        self.fields["code"].help_text = "The six digits that the app shows."
        self.fields["code"].widget.attrs["inputmode"] = "numeric"

    def verify(self, code: str) -> None:
        self.device, self.recovery_codes = devices.enrol(self.request, self.key, code)
