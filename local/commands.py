"""Runs manage.py commands in one process: `python -m local.commands "create_wallet --count 2" check`."""

import os
import shlex
import sys

import django
from django.core.management import CommandError, call_command


def main() -> None:
    os.environ["STATEMENT_TIMEOUT_SECONDS"] = "off"  # as in manage.py: the limit is for requests
    django.setup()
    for command in sys.argv[1:]:
        try:
            call_command(*shlex.split(command))
        except CommandError as error:
            sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
