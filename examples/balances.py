"""What the consumers beside this file do with events: keep the balance of every wallet.

Events come at least once, so an event's id is remembered in the transaction that applies it: both are on
disk, or neither is, whenever the program or the machine stops.

Of `seen` may be deleted what cannot come again: what is older than EVENTS_RETRY_DAYS, than the dead letters,
than what the broker keeps, and than the backup that the service may be restored from.
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
        """Once, however often it comes. Acknowledge it when this has returned, not before."""
        with self._database:
            if not self._is_new(event["id"]):
                print(f"{event['id']} has been applied before", flush=True)
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
