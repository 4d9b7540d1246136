"""Keep the balance of every wallet from its events; the consumers in this folder share this module.

Delivery is at least once, so the id of an event is stored in the transaction that applies it: after a crash
of the program or the machine, both are on disk or neither is.

A row of `seen` may be deleted when its event cannot be delivered again: when it is older than
EVENTS_RETRY_DAYS, than the dead letters, than the broker's retention, and than the oldest backup from which
the service may be restored.
"""

import os
import sqlite3
from decimal import Decimal
from typing import Any


class Balances:
    def __init__(self) -> None:
        self._database = sqlite3.connect(os.environ.get("BALANCES", "balances.sqlite3"))
        self._database.execute("CREATE TABLE IF NOT EXISTS seen (event_id TEXT PRIMARY KEY)")
        self._database.execute("CREATE TABLE IF NOT EXISTS balance (wallet_id TEXT PRIMARY KEY, amount TEXT)")

    def apply(self, event: dict[str, Any]) -> None:
        """Apply the event once, however often it is delivered. Acknowledge it after this returns."""
        with self._database:
            if not self._is_new(event["id"]):
                print(f"{event['id']} was already applied", flush=True)
            elif event["type"] == "wallet.balance.changed":
                self._add(event["data"]["walletId"], Decimal(event["data"]["change"]))

    def _is_new(self, event_id: str) -> bool:
        return bool(self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", [event_id]).rowcount)

    def _add(self, wallet_id: str, change: Decimal) -> None:
        found = self._database.execute(
            "SELECT amount FROM balance WHERE wallet_id = ?", [wallet_id]
        ).fetchone()
        balance = (Decimal(found[0]) if found else Decimal(0)) + change
        self._database.execute("REPLACE INTO balance VALUES (?, ?)", [wallet_id, str(balance)])
        print(f"{wallet_id} {change:+} = {balance}", flush=True)
