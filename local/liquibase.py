"""Runs Liquibase on the changelogs with the same settings as the container."""

import os
import re
import shutil
from functools import cache
from urllib.parse import quote, urlencode

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from local import ROOT, LocalError
from local.files import digest
from local.jars import java
from local.postgres import SUPERUSER
from local.processes import error_line, run

FOLDER = ROOT / "liquibase"
CHANGELOG = "changelog.yaml"  # relative, as in compose: Liquibase records changesets with this path
MIN_VERSION = (4, 28)
FIRST_UNSUPPORTED_VERSION = (5,)  # version 5 has no PostgreSQL driver, and another licence


def update(url: str) -> None:
    _run(url, "update")


def update_to(url: str, tag: str) -> None:
    """Apply the changelogs up to a tag, as a released version had them."""
    _run(url, "update-to-tag", f"--tag={tag}")


def rollback_all(url: str) -> None:
    _run(url, "rollback-to-date", "--date=1970-01-01")


def status(url: str) -> str:
    return _run(url, "status", "--verbose").strip()


def release_locks(url: str) -> None:
    """Release the lock of a killed update. No other update of this database may be running."""
    _run(url, "release-locks")


def changelog_hash() -> str:
    return digest(FOLDER)


@cache
def command() -> tuple[str, ...]:
    """Return the command: $LIQUIBASE, or a supported one on the PATH, or the local copy."""
    if chosen := os.environ.get("LIQUIBASE"):
        if (found := _version(chosen)) < MIN_VERSION:
            raise LocalError(
                f"LIQUIBASE={chosen} is version {_dotted(found)}, older than {_dotted(MIN_VERSION)}"
            )
        return (chosen,)
    installed = shutil.which("liquibase")
    if installed and MIN_VERSION <= _version(installed) < FIRST_UNSUPPORTED_VERSION:
        return (installed,)
    return java()


def _version(program: str) -> tuple[int, ...]:
    try:
        found = re.search(r"Liquibase Version: (\d+(?:\.\d+)*)", run([program, "--version"]))
    except LocalError:  # it cannot start
        return ()
    return tuple(int(number) for number in found[1].split(".")) if found else ()


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version)) or "unknown"


def _run(url: str, *arguments: str) -> str:
    # The user's LIQUIBASE_* variables could name another database; `ps` would show a password argument.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LIQUIBASE_")}
    settings = {
        "LIQUIBASE_COMMAND_CHANGELOG_FILE": CHANGELOG,
        "LIQUIBASE_SEARCH_PATH": str(FOLDER),
        "LIQUIBASE_CHANGELOGLOCK_WAIT_TIME_IN_MINUTES": "1",
        "LIQUIBASE_LOG_LEVEL": "WARNING",
        "LIQUIBASE_SHOW_BANNER": "false",
        "LIQUIBASE_ANALYTICS_ENABLED": "false",
    }
    env = {**inherited, **settings, **connection(url)}
    return run([*command(), *arguments], env=env, cwd=FOLDER, explain=explanation)


def connection(url: str) -> dict[str, str]:
    """Convert a libpq URL to Liquibase's variables: a JDBC URL and the login."""
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except ProgrammingError:  # its message has the password
        raise LocalError("the URL must be like postgres://user:password@host:port/database") from None
    host = parts.get("host", "localhost")
    if host.startswith(("/", "@")):
        raise LocalError("Liquibase needs a host and a port, not a socket: set DATABASE_OWNER_URL")
    user = parts.get("user", SUPERUSER)
    host = f"[{host}]" if ":" in host else host
    tls = urlencode({name: value for name, value in parts.items() if name.startswith("ssl")})
    address = f"{host}:{parts.get('port', '5432')}/{quote(parts.get('dbname', user), safe='')}"
    return {
        "LIQUIBASE_COMMAND_URL": f"jdbc:postgresql://{address}" + (f"?{tls}" if tls else ""),
        "LIQUIBASE_COMMAND_USERNAME": user,
        "LIQUIBASE_COMMAND_PASSWORD": parts.get("password", ""),
    }


def explanation(output: str) -> str:
    """Return the reason of a Liquibase error, without stack traces."""
    reasons = re.findall(r"Unexpected error running Liquibase: (.+?)(?:\n\s*\n|\Z)", output, re.DOTALL)
    reason = " ".join(reasons[-1].split()) if reasons else error_line(output)
    return f"Liquibase failed: {reason}"
