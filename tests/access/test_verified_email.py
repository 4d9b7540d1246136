"""Verified e-mail addresses: an account can be paid by its address after its owner follows a mailed link."""

import re
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import LazySettings
from django.contrib.auth.tokens import default_token_generator
from django.core import mail
from django.test import Client

from tests.support.client import Api
from tests.support.keys import PASSWORD, new_operator, session_of
from tests.support.mail import link_in, mailed, refusing_mail
from tests.support.people import MODEL_BACKEND, Person, bank, new_account, new_address, registration
from wallets.access import verification
from wallets.models import User
from walletsvc.environment import Rate

pytestmark = pytest.mark.usefixtures("quick_hashing", "with_mail")

EXPIRED_TEXT = "This link is too old, or it was used before."
CONFIRM_TEXT = "This is my address and my wallet"


def browser(user: User | None = None, **options: Any) -> Client:
    client = Client(raise_request_exception=False, **options)
    if user:
        client.force_login(user, backend=MODEL_BACKEND)
    return client


def text_of(response: Any) -> str:
    return str(response.content.decode())


def unverified(**fields: Any) -> Person:
    return new_account(**{"verified_email": "", **fields})


def is_verified(user: User) -> bool:
    return User.objects.get(pk=user.pk).has_verified_email


def pay(email: str) -> int:
    """Return the status of a transfer to the address."""
    body = {"sourceWalletId": new_account("10").wallet_id, "targetEmail": email, "amount": "1"}
    return bank().post("/transfers", body).status


# --- The link ---------------------------------------------------------------------------------------
def sign_up_by_api(email: str) -> None:
    answer = Api().post("/signup", registration(email=email))
    assert (answer.status, answer.json["emailVerified"]) == (201, False)


def sign_up_by_page(email: str) -> None:
    assert browser().post("/signup", registration(email=email)).status_code == 302


@pytest.mark.parametrize("sign_up", [sign_up_by_api, sign_up_by_page])
def test_account_is_paid_by_address_after_verification(sign_up: Any) -> None:
    email = new_address()
    sign_up(email)
    [message] = mailed()
    assert (message.to, message.subject) == ([email], "Verify the e-mail address of your wallet")
    assert pay(email) == 404
    client = browser()
    page = client.get(link_in(message))
    assert (page.status_code, CONFIRM_TEXT in text_of(page), email in text_of(page)) == (200, True, True)
    assert pay(email) == 404  # only the POST verifies: mail scanners open links
    done = client.post(link_in(message), follow=True)
    assert "Your e-mail address is verified." in text_of(done)
    assert pay(email) == 201


def test_link_works_in_any_session() -> None:
    for session in (True, False):
        anna, boris = unverified().user, unverified().user
        client = browser(anna if session else boris)
        assert client.post(verification.path_for(anna)).status_code == 302
        assert (is_verified(anna), is_verified(boris)) == (True, False)


def test_me_states_whether_the_address_is_verified() -> None:
    user = unverified().user
    assert session_of(user).get("/me").json["emailVerified"] is False
    browser().post(verification.path_for(user))
    assert session_of(user).get("/me").json["emailVerified"] is True


def test_mail_and_its_page_are_in_the_users_language() -> None:
    client = browser(headers={"Accept-Language": "ru"})
    client.post("/signup", registration())
    [message] = mailed()
    assert "Здравствуйте" in message.body
    assert re.search("[а-я]", message.subject)
    assert "Это мой адрес" in text_of(client.get(link_in(message)))


def test_confirmation_needs_a_csrf_token() -> None:
    user = unverified().user
    client = browser(enforce_csrf_checks=True)
    assert client.post(verification.path_for(user)).status_code == 403
    assert not is_verified(user)


# --- Links that do not work -------------------------------------------------------------------------
def assert_refused(user: User, path: str) -> None:
    for client in (browser(), browser(user)):
        for answer in (client.get(path), client.post(path)):
            assert (answer.status_code, CONFIRM_TEXT in text_of(answer)) == (200, False)
            assert EXPIRED_TEXT in text_of(answer)


def test_link_works_once() -> None:
    user = unverified().user
    path = verification.path_for(user)
    assert browser().post(path).status_code == 302
    assert_refused(user, path)
    User.objects.filter(pk=user.pk).update(verified_email="other@example.com")
    assert_refused(user, path)


def test_link_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    user = unverified().user
    monkeypatch.setattr(verification._Tokens, "_now", lambda _: datetime.now() - timedelta(days=3, minutes=1))  # noqa: DTZ005
    path = verification.path_for(user)
    monkeypatch.undo()
    assert_refused(user, path)
    assert not is_verified(user)


def test_link_to_the_old_address_does_not_verify_the_new_one() -> None:
    user = unverified().user
    path = verification.path_for(user)
    User.objects.filter(pk=user.pk).update(email=new_address())
    assert_refused(user, path)
    assert not is_verified(user)


def test_address_changed_between_check_and_write_stays_unverified() -> None:
    user = unverified().user
    loaded = User.objects.get(pk=user.pk)
    User.objects.filter(pk=user.pk).update(email=new_address())
    assert not verification.verify(loaded)
    assert not is_verified(user)


def test_inactive_account_is_not_verified() -> None:
    user = unverified(is_active=False).user
    assert_refused(user, verification.path_for(user))
    assert not verification.verify(user)
    assert not is_verified(user)


@pytest.mark.parametrize(
    "token", ["x", "x-y", "set-password", "é-é", "%00-x", "d1oq4e-" + "0" * 32, "-", "a" * 9000]
)
def test_forged_token_verifies_nothing(token: str) -> None:
    user = unverified().user
    assert_refused(user, f"/email/verify/{user.pk}/{token}")
    assert not is_verified(user)


@pytest.mark.parametrize("number", ["0", "9" * 18, "9" * 40])
def test_unknown_user_id_is_like_a_wrong_token(number: str) -> None:
    assert_refused(new_account().user, f"/email/verify/{number}/x-y")


def test_token_of_another_account_or_purpose_verifies_nothing() -> None:
    anna, boris = unverified().user, unverified().user
    of_boris = verification.path_for(boris).rpartition("/")[2]
    for token in (of_boris, default_token_generator.make_token(anna)):
        assert_refused(anna, f"/email/verify/{anna.pk}/{token}")
    assert not is_verified(anna)


def test_verification_token_resets_no_password() -> None:
    user = unverified().user
    token = verification.path_for(user).rpartition("/")[2]
    uid = link_to_new_password(user).split("/")[3]
    page = text_of(browser().get(f"/password/new/{uid}/{token}", follow=True))
    assert EXPIRED_TEXT in page


def link_to_new_password(user: User) -> str:
    browser().post("/password/forgotten", {"email": user.email})
    return link_in(mailed()[-1])


# --- An address that another person signed up with --------------------------------------------------
def test_owner_of_the_mailbox_takes_over_the_account() -> None:
    squatter = unverified()
    squatter_browser, owner = browser(squatter.user), browser()
    link = link_to_new_password(squatter.user)
    form = owner.get(link, follow=True).redirect_chain[-1][0]
    new = "nine green elephants"
    assert owner.post(form, {"new_password1": new, "new_password2": new}).status_code == 302
    assert is_verified(squatter.user)
    assert squatter_browser.get("/password").status_code == 302
    assert (
        browser().post("/login", {"username": squatter.user.email, "password": PASSWORD}).status_code == 200
    )
    assert pay(squatter.user.email) == 201


def test_link_page_warns_a_user_who_did_not_sign_up() -> None:
    page = text_of(browser().get(verification.path_for(unverified().user)))
    assert "If you did not open the wallet, do not confirm." in page
    assert 'href="/password/forgotten"' in page


# --- Another link -----------------------------------------------------------------------------------
def test_wallet_page_offers_to_send_the_link_again() -> None:
    user = unverified().user
    client = browser(user)
    assert "is not verified yet" in text_of(client.get("/"))
    page = text_of(client.post("/email/verify", follow=True))
    assert "A message with a link is on its way to your address." in page
    [message] = mailed()
    assert message.to == [user.email]
    assert client.post(link_in(message)).status_code == 302
    assert "is not verified yet" not in text_of(client.get("/"))
    assert client.post("/email/verify").status_code == 302
    assert len(mailed()) == 1


def test_resending_the_link_is_limited(settings: LazySettings) -> None:
    allowed = 2
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "reset": Rate(allowed, 9999 * 86_400)}
    client = browser(unverified().user)
    found = [client.post("/email/verify").status_code for _ in range(allowed + 1)]
    assert found == [302] * allowed + [429]
    assert len(mailed()) == allowed


def test_no_link_is_offered_without_a_mail_server(settings: LazySettings) -> None:
    settings.MAIL = None
    user = unverified().user
    page = text_of(browser(user).get("/"))
    assert ("is not verified yet" in page, 'action="/email/verify"' in page) == (True, False)
    assert browser(user).post("/email/verify").status_code == 404
    assert Api().post("/signup", registration()).status == 201
    assert mailed() == []


def test_account_without_an_address_has_nothing_to_verify() -> None:
    user = new_account(email="", username=f"olga-{uuid4()}").user
    client = browser(user)
    assert "is not verified yet" not in text_of(client.get("/"))
    assert client.post("/email/verify").status_code == 302
    assert_refused(user, verification.path_for(user))
    assert mailed() == []


# --- Mail that cannot be sent -----------------------------------------------------------------------
def test_sign_up_succeeds_if_the_mail_server_refuses(
    settings: LazySettings, caplog: pytest.LogCaptureFixture
) -> None:
    email = new_address()
    with refusing_mail() as url:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", int(url.rpartition(":")[2])
        sign_up_by_api(email)
        assert mailed() == []
    user = User.objects.get(email=email)
    assert f"the mail 'verify' to user {user.pk} was not sent" in caplog.text


def test_address_that_looks_like_two_is_one_recipient() -> None:
    email = f'"eve@evil.example,{uuid4()}"@example.com'
    sign_up_by_api(email)
    [message] = mailed()
    assert message.recipients() == [email]
    assert "evil.example" not in str(message.message()["To"]).partition('"')[0]


def test_address_cannot_inject_a_mail_header() -> None:
    user = new_operator(email="anna@example.com\nBcc: eve@evil.example")
    verification.send_link(user)
    assert mailed() == []
    assert mail.outbox == []
