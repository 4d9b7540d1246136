"""The admin: operators view all data; a change of a balance is an operation in the ledger.

Each change of a wallet is recorded with a reason and the operator's name.
"""

from wallets.admin import audit, holds, inbox, keys, operations, transfers, users, wallets, webhooks

# Importing these modules registers their pages.
__all__ = [
    "audit",
    "holds",
    "inbox",
    "keys",
    "operations",
    "transfers",
    "users",
    "wallets",
    "webhooks",
]
