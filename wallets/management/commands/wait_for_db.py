"""manage.py wait_for_db: wait until the database has the schema that this code needs."""

import time
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error

from wallets.health import missing_schema
from wallets.management.arguments import Command as Base

RETRY_PAUSE_SECONDS = 0.5


class Command(Base):
    help = "Wait until the database is reachable with the schema that this code needs, or a newer one."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--timeout", type=float, default=60, help="seconds (default: %(default)s)")

    def handle(self, **options: Any) -> None:
        if options["timeout"] < 0:
            self.refuse("--timeout must not be negative")
        deadline, printed = time.monotonic() + options["timeout"], ""
        while (missing := self._missing()) is not None:
            if time.monotonic() >= deadline:
                raise CommandError(f"gave up after {options['timeout']:g} s: {missing}", returncode=1)
            if missing != printed:
                self.stderr.write(f"waiting: {missing}")
                printed = missing
            time.sleep(RETRY_PAUSE_SECONDS)

    def _missing(self) -> str | None:
        try:
            return missing_schema()
        except Error as error:
            return str(error).strip()
