"""Pages for sign-up, login, logout, passwords and the verification of e-mail addresses."""

from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import views as auth
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from wallets.access import limits, people, verification
from wallets.access.attempts import counted, with_problem_status
from wallets.pages.access import user_of, user_page
from wallets.pages.forms import ChangePasswordForm, ForgottenForm, LogInForm, NewPasswordForm, SignUpForm
from wallets.pages.labels import problem_text
from wallets.problems import Problem


@counted(limits.SIGNUP)
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def sign_up(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect("home")
    form = SignUpForm(request.POST or None)
    if form.is_valid():
        data = form.cleaned_data
        try:
            user = people.sign_up(data["name"], data["email"], data["password"])
        except Problem as problem:
            form.refuse(problem, problem_text(problem))
            return with_problem_status(render(request, "pages/signup.html", {"form": form}), problem)
        else:
            people.begin_session(request, user)
            return redirect("home")
    return render(request, "pages/signup.html", {"form": form})


# Otherwise Django's form views would treat a PUT as a POST.
FORM_METHODS: Final = ["get", "head", "post"]


class LogInPage(auth.LoginView):
    http_method_names = FORM_METHODS
    template_name = "pages/login.html"
    authentication_form = LogInForm
    redirect_authenticated_user = True
    extra_context = {"can_reset": settings.MAIL is not None}

    def get_redirect_url(self, *args: Any, **kwargs: Any) -> str:
        """Return the next page, but not the login: Django would report a redirect loop."""
        url = super().get_redirect_url(*args, **kwargs)
        return "" if url == self.request.path else url

    def form_invalid(self, form: Any) -> HttpResponse:
        return with_problem_status(super().form_invalid(form), form.problem)


log_in = counted(limits.LOGIN)(LogInPage.as_view())


class LogOutPage(auth.LogoutView):
    next_page = "login"


class ChangePassword(auth.PasswordChangeView):
    http_method_names = FORM_METHODS
    template_name = "pages/password.html"
    form_class = ChangePasswordForm
    success_url = reverse_lazy("home")

    def form_valid(self, form: Any) -> HttpResponse:
        messages.success(self.request, _("Your password has been changed. Other devices are logged out."))
        return super().form_valid(form)


# An attacker with the session could guess the old password here.
change_password = counted(limits.LOGIN)(user_page(ChangePassword.as_view()))


# --- Forgotten passwords ----------------------------------------------------------------------------
class ByMail:
    """Mixin: the page does not exist if the service cannot send mail."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if settings.MAIL is None:
            raise Http404
        response: HttpResponseBase = super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        return response


class Forgotten(ByMail, auth.PasswordResetView):
    http_method_names = FORM_METHODS
    template_name = "pages/forgotten.html"
    form_class = ForgottenForm
    success_url = reverse_lazy("login")

    def form_valid(self, form: Any) -> HttpResponse:
        limits.require(limits.RESET, form.cleaned_data["email"].lower())
        messages.info(
            self.request,
            _("If an account with this address exists, a message with a link has been sent to it."),
        )
        return super().form_valid(form)


forgotten = counted(limits.LOGIN)(Forgotten.as_view())


class NewPassword(ByMail, auth.PasswordResetConfirmView):
    http_method_names = FORM_METHODS
    template_name = "pages/new_password.html"
    form_class = NewPasswordForm
    success_url = reverse_lazy("login")

    def form_valid(self, form: Any) -> HttpResponse:
        """Also mark the address as verified: the user has followed the link in the mail."""
        form.user.verified_email = form.user.email  # saved with the password
        messages.success(self.request, _("Your password has been changed. Log in with it."))
        return super().form_valid(form)


# --- Verified e-mail addresses ----------------------------------------------------------------------
@require_http_methods(["GET", "HEAD", "POST"])
def verify_email(request: HttpRequest, user_id: int, token: str) -> HttpResponse:
    """Ask for confirmation (GET), because mail scanners open links, or verify (POST). Needs no session."""
    user = verification.find(user_id, token)
    if user is None or request.method != "POST":
        context = {"account": user, "can_reset": settings.MAIL is not None}
        return render(request, "pages/verify_email.html", context)
    if not verification.verify(user):  # an operator has just changed the address
        return render(request, "pages/verify_email.html")
    messages.success(request, _("Your e-mail address is verified. Money can be sent to it."))
    return redirect("home")


@require_POST
@user_page
def send_verification(request: HttpRequest) -> HttpResponse:
    """Send the link to the address of the account again."""
    if settings.MAIL is None:
        raise Http404
    user = user_of(request)
    if user.email and not user.has_verified_email:
        verification.send_link_again(user)
        messages.info(request, _("A message with a link is on its way to your address."))
    return redirect("home")
