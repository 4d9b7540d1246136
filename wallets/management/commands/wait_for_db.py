"""manage.py wait_for_db: return when the database is there with the schema this code needs."""

import time
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error

from wallets.health import schema_tag
from wallets.management.arguments import Command as Base
from wallets.schema import EXPECTED_TAG

PAUSE = 0.5


class Command(Base):
    help = "Wait until the database is reachable and its schema is the expected one."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--timeout", type=float, default=60, help="seconds (default: %(default)s)")

    def handle(self, **options: Any) -> None:
        if options["timeout"] < 0:
            self.refuse("--timeout must not be negative")
        deadline = time.monotonic() + options["timeout"]
        while (missing := self._missing()) is not None:
            if time.monotonic() >= deadline:
                raise CommandError(f"gave up after {options['timeout']:g} s: {missing}", returncode=1)
            time.sleep(PAUSE)

    def _missing(self) -> str | None:
        try:
            tag = schema_tag()
        except Error as error:
            return str(error).strip()
        return None if tag == EXPECTED_TAG else f"the schema is at {tag}, not at {EXPECTED_TAG}"
