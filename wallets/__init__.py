"""Wallets and the ledger behind them."""
