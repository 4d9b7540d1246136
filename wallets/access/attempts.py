"""Rate limits for forms in which a client can guess a password or code, by network address."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.core.validators import MaxLengthValidator
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from wallets.access import limits, people
from wallets.error_mapping import to_problem
from wallets.problems import PayloadTooLarge, Problem, TooManyRequests

View = Callable[..., HttpResponseBase]

MAX_FORM_BYTES: Final = 16_384  # fits a password of 1,024 characters of twelve bytes each, and a token


def counted(limit: str) -> Callable[[View], View]:
    """Decorate the view of a form: count each POST against the limit before its body is read.

    The CSRF check reads the body, so it runs after the count.
    """

    def decorate(view: View) -> View:
        protected = csrf_protect(view)

        @csrf_exempt
        @wraps(view)
        def count_first(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if request.method == "POST":
                limits.require(limit, limits.network_of(request))
                _read_form(request)
            return protected(request, *args, **kwargs)

        return count_first

    return decorate


def _read_form(request: HttpRequest) -> None:
    """Parse the form. Raises a Problem if it is too long or malformed."""
    if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_FORM_BYTES:
        raise PayloadTooLarge(f"A form has at most {MAX_FORM_BYTES} bytes.")
    try:
        request.POST  # noqa: B018
    except Exception as error:
        raise to_problem(error) from None


class CountedForm(forms.Form):
    request: HttpRequest
    problem: Problem | None = None  # set if the attempt was refused before the fields were checked

    def clean(self) -> dict[str, Any] | None:
        try:
            return super().clean()
        except Problem as problem:
            self.problem = problem
            raise forms.ValidationError(self.error_text(problem)) from None

    def error_text(self, problem: Problem) -> str:
        return f"{problem.detail.rstrip('.')}; try again later."


class CountedLogInForm(CountedForm, AuthenticationForm):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, max_length in (
            ("username", people.MAX_EMAIL),
            ("password", people.MAX_PASSWORD),
        ):
            self.fields[name].validators.append(MaxLengthValidator(max_length))

    def confirm_login_allowed(self, user: Any) -> None:
        super().confirm_login_allowed(user)
        if people.is_locked(self.request, self.cleaned_data["username"]):
            raise people.login_problem(self.request)

    def get_invalid_login_error(self) -> forms.ValidationError:
        refusal = people.login_problem(self.request)
        if isinstance(refusal, TooManyRequests):
            raise refusal
        return super().get_invalid_login_error()


def with_problem_status(page: HttpResponse, problem: Problem | None) -> HttpResponse:
    """Return the page with the status and headers of the problem, if there is one."""
    if problem is not None:
        page.status_code = problem.status
        page.problem = problem.code  # type: ignore[attr-defined]
        for name, value in problem.headers.items():
            page[name] = value
    return page
