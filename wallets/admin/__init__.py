"""The operators' pages: look at everything, change no balance by hand.

What changes a wallet goes through the ledger, with a reason and the operator's name.
"""

from wallets.admin import operations, users, wallets

__all__ = ["operations", "users", "wallets"]  # importing them registers their pages
