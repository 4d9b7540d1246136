"""Subscribers, relay processes and waiting for events."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from uuid_utils.compat import uuid7

from wallets.events import delivery_state, log, webhooks
from wallets.models import Subscriber

EVENT_TIMEOUT_SECONDS = 60.0


@contextmanager
def subscribed(url: str, **fields: Any) -> Iterator[Subscriber]:
    """Create a webhook that gets events from now on; delete it at the end of the block."""
    id = fields.pop("id", None) or uuid7()
    subscriber = Subscriber.objects.create(
        id=id,
        kind=Subscriber.Kind.WEBHOOK,
        name=f"test {id}",
        url=url,
        secret=webhooks.new_secret(),
        **delivery_state.from_now_on() | fields,
    )
    try:
        yield subscriber
    finally:
        Subscriber.objects.filter(id=id).delete()


@contextmanager
def relaying(**environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `manage.py relay_events` until the end of the block, when SIGKILL ends it."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "relay_events"],
        env=os.environ | {"WEBHOOK_TARGETS": "any"} | environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], object], failure: str) -> None:
    deadline = time.monotonic() + EVENT_TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.02)


def horizon() -> int:
    """Wait for a horizon after all finished transactions, and return it.

    Another transaction, such as an ANALYZE, delays it. A later call of log.horizon can return an earlier one.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
        done = int(cursor.fetchone()[0])
    deadline = time.monotonic() + EVENT_TIMEOUT_SECONDS
    while (found := log.horizon()) < done:
        assert time.monotonic() < deadline, "a transaction does not end"
        time.sleep(0.02)
    return found
