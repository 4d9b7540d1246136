"""The URLs that the benchmark uses, as in the service."""

from django.urls import path

from loadtest.naive.views import NaiveOperation, ReadWallet
from wallets.health import livez

urlpatterns = [
    path("livez", livez),
    path("api/v1/wallets/<uuid:wallet_id>", ReadWallet.as_view()),
    path("api/v1/wallets/<uuid:wallet_id>/operation", NaiveOperation.as_view()),
]
