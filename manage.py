#!/usr/bin/env python
"""Django's command line, for operators and scripts."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

from walletsvc.version import VERSION


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "walletsvc.settings")
    # It is for requests: a command, such as verify_ledger, takes as long as it needs.
    os.environ["STATEMENT_TIMEOUT_SECONDS"] = "off"
    if sys.argv[1:] in (["version"], ["--version"]):  # Django would print its own
        print(VERSION)
        return
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"walletsvc is not configured: {error}")


if __name__ == "__main__":
    main()
