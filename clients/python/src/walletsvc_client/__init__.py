"""The Python client of walletsvc. README.md of the package has examples."""

from ._calls import Amount, BulkDeposit, BulkItem, BulkTransfer, BulkWithdrawal, Id
from ._client import AsyncClient, Client, error_of
from ._errors import NoResponse, UnexpectedResponse, WalletsvcError
from ._generated import models, problems
from ._generated.problems import *  # noqa: F403
from ._generated.types import UNSET, Unset
from ._retries import Retries
from ._webhooks import Event, InvalidWebhook, verify_webhook

__all__ = [
    "UNSET",
    "Amount",
    "AsyncClient",
    "BulkDeposit",
    "BulkItem",
    "BulkTransfer",
    "BulkWithdrawal",
    "Client",
    "Event",
    "Id",
    "InvalidWebhook",
    "NoResponse",
    "Retries",
    "UnexpectedResponse",
    "Unset",
    "WalletsvcError",
    "error_of",
    "models",
    "verify_webhook",
]
__all__ += problems.__all__
