"""Forms to guess with. How often one may be sent is limited, for the address that it comes from."""

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.core.validators import MaxLengthValidator
from django.http import HttpRequest, HttpResponse

from wallets.access import limits, people
from wallets.problems import Problem, TooManyRequests


class Attempt(forms.Form):
    request: HttpRequest
    problem: Problem | None = None  # what it met, if what was filled in was not even looked at

    def clean(self) -> dict[str, Any] | None:
        try:
            limits.require(limits.LOGIN, limits.network_of(self.request))
            return super().clean()
        except Problem as problem:
            self.problem = problem
            raise forms.ValidationError(self.told(problem)) from None

    def told(self, problem: Problem) -> str:
        return f"{problem.detail.rstrip('.')}; try again later."


class LogInForm(Attempt, AuthenticationForm):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, most in (("username", people.MAX_EMAIL), ("password", people.MAX_PASSWORD)):
            self.fields[name].validators.append(MaxLengthValidator(most))

    def confirm_login_allowed(self, user: Any) -> None:
        super().confirm_login_allowed(user)
        if people.is_locked(self.request, self.cleaned_data["username"]):
            raise people.refusal(self.request)

    def get_invalid_login_error(self) -> forms.ValidationError:
        refusal = people.refusal(self.request)
        if isinstance(refusal, TooManyRequests):
            raise refusal
        return super().get_invalid_login_error()


def as_told(page: HttpResponse, problem: Problem | None) -> HttpResponse:
    """The page with the status and the fields of the problem that it tells of."""
    if problem is not None:
        page.status_code = problem.status
        page.problem = problem.code  # type: ignore[attr-defined]
        for name, value in problem.headers.items():
            page[name] = value
    return page
