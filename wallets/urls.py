"""Addresses below /api/v1."""

import re
from uuid import UUID

from django.urls import path, register_converter

from wallets import views

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class IdConverter:
    """A UUID. Anything else becomes the nil UUID, which names nothing: so it is a 404 of the right noun."""

    regex = "[^/]+"

    def to_python(self, value: str) -> UUID:
        return UUID(value) if _UUID.fullmatch(value) else UUID(int=0)

    def to_url(self, value: UUID) -> str:
        return str(value)


register_converter(IdConverter, "id")

# They are tried from the top: what is asked for a thousand times a second comes first.
urlpatterns = [
    path("wallets/<id:wallet_id>/operation", views.WalletOperation.as_view()),
    path("wallets/<id:wallet_id>", views.WalletById.as_view()),
    path("wallet", views.WalletOperationInBody.as_view()),
    path("wallet/create", views.OpenWallet.as_view()),
    path("wallets", views.Wallets.as_view()),
    path("wallets/<id:wallet_id>/operations", views.WalletOperations.as_view()),
    path("operations/<id:operation_id>", views.OperationById.as_view()),
]
