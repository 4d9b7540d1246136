"""URLs of the pages."""

from django.urls import path
from django.views.decorators.http import require_POST
from django.views.i18n import set_language

import wallets.contract.url_converters  # noqa: F401 - registers `id`
from wallets.pages import accounts, transfers, wallet

urlpatterns = [
    path("", wallet.home, name="home"),
    path("signup", accounts.sign_up, name="signup"),
    path("login", accounts.log_in, name="login"),
    path("logout", accounts.LogOutPage.as_view(), name="logout"),
    path("password", accounts.change_password, name="password"),
    path("password/forgotten", accounts.forgotten, name="forgotten"),
    path("password/new/<uidb64>/<token>", accounts.NewPassword.as_view(), name="new_password"),
    path("email/verify/<int:user_id>/<token>", accounts.verify_email, name="verify_email"),
    path("email/verify", accounts.send_verification, name="send_verification"),
    path("language", require_POST(set_language), name="language"),
    path("wallets/<id:wallet_id>", wallet.wallet_by_id, name="wallet"),
    path("wallets/<id:wallet_id>/balance", wallet.balance, name="balance"),
    path("wallets/<id:wallet_id>/statement.csv", wallet.statement_csv, name="statement"),
    path("wallets/<id:wallet_id>/transfer", transfers.transfer, name="transfer"),
    path("transfers/<id:transfer_id>", transfers.transfer_by_id, name="transfer_by_id"),
]
