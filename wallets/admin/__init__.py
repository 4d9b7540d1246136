"""The operators' pages: look at everything, change no balance by hand.

What changes a wallet goes through the ledger, with a reason and the operator's name.
"""

from wallets.admin import audit, holds, inbox, keys, operations, transfers, users, wallets, webhooks

# Importing them registers their pages.
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
