"""URL paths below /api/v1."""

from django.urls import path

from wallets.api import events, history, holds, operations, people, transfers, wallets, webhooks
from wallets.contract import url_converters  # noqa: F401 - registers `id`

# Django tries them from the top: the most frequent requests come first.
urlpatterns = [
    path("wallets/<id:wallet_id>/operation", operations.WalletOperation.as_view()),
    path("wallets/<id:wallet_id>", wallets.WalletById.as_view()),
    path("wallet", operations.WalletOperationInBody.as_view()),
    path("transfers", transfers.Transfers.as_view()),
    path("operations", operations.Operations.as_view()),
    path("operations/<id:operation_id>", operations.OperationById.as_view()),
    path("operations/<id:operation_id>/reversal", operations.OperationReversal.as_view()),
    path("transfers/<id:transfer_id>", transfers.TransferById.as_view()),
    path("holds/<id:hold_id>", holds.HoldById.as_view()),
    path("holds/<id:hold_id>/capture", holds.HoldCapture.as_view()),
    path("holds/<id:hold_id>/void", holds.HoldVoid.as_view()),
    path("wallets/<id:wallet_id>/holds", holds.WalletHolds.as_view()),
    path("wallets/<id:wallet_id>/operations", operations.WalletOperations.as_view()),
    path("wallets/<id:wallet_id>/balance", history.WalletBalance.as_view()),
    path("wallets/<id:wallet_id>/statement", history.WalletStatement.as_view()),
    path("wallets/<id:wallet_id>/events", events.WalletEvents.as_view()),
    path("wallets", wallets.Wallets.as_view()),
    path("wallet/create", wallets.OpenWallet.as_view()),
    path("webhooks", webhooks.Webhooks.as_view()),
    path("webhooks/<id:webhook_id>", webhooks.WebhookById.as_view()),
    path("webhooks/<id:webhook_id>/rotation", webhooks.WebhookRotation.as_view()),
    path("webhooks/<id:webhook_id>/test", webhooks.WebhookTest.as_view()),
    path("webhooks/<id:webhook_id>/deliveries", webhooks.WebhookDeliveries.as_view()),
    path("webhooks/<id:webhook_id>/dead-letters", webhooks.WebhookDeadLetters.as_view()),
    path("webhooks/<id:webhook_id>/replay", webhooks.WebhookReplay.as_view()),
    path("me", people.Me.as_view()),
    path("me/wallet", people.MyWallet.as_view()),
    path("signup", people.SignUp.as_view()),
    path("login", people.LogIn.as_view()),
    path("logout", people.LogOut.as_view()),
]
