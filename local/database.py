"""Prepares a database for the service: roles, changelogs, permissions, a demo wallet, an operator."""

import os
import secrets
import shlex
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import psycopg

from local import ROOT, STATE, LocalError, liquibase
from local.files import digest, write
from local.postgres import APPLICATION, OWNER, Cluster
from local.processes import error_line, run
from local.steps import step

SOURCES = (liquibase.FOLDER, ROOT / "wallets", ROOT / "walletsvc")
UNFINISHED = "unfinished"


def update_embedded(cluster: Cluster) -> str | None:
    """Apply the changelogs, unless the sources are unchanged since the last `mark_current`.

    Return the digest of the sources, for `mark_current` after `seed`; None if they are unchanged.
    """
    now = digest(*SOURCES)
    before = _stamp(cluster).read_text() if _stamp(cluster).exists() else ""
    if before == now:
        return None
    with step("Changelogs, applied by Liquibase"):
        write(_stamp(cluster), UNFINISHED)
        cluster.prepare_roles()
        # A killed update leaves Liquibase's lock. Our own lock guarantees that no other update runs.
        if before == UNFINISHED:
            liquibase.release_locks(cluster.url(OWNER))
        liquibase.update(cluster.url(OWNER))
    return now


def mark_current(cluster: Cluster, sources: str) -> None:
    write(_stamp(cluster), sources)


def _stamp(cluster: Cluster) -> Path:
    return cluster.folder / "sources"


def update_external(env: dict[str, str]) -> None:
    owner = os.environ.get("DATABASE_OWNER_URL") or env["DATABASE_URL"]
    liquibase.connection(owner)  # fails first: psycopg would quote a malformed URL with its password
    _require_application_role(owner)
    with step("Changelogs, applied by Liquibase to the database of DATABASE_URL"):
        try:
            liquibase.update(owner)
        except LocalError as error:
            raise LocalError(
                f"{error} (as DATABASE_OWNER_URL, or as DATABASE_URL if that is unset)"
            ) from error


def seed(env: dict[str, str], *, permissions: bool) -> str:
    """Create the demo wallet and the operator `admin` if they are missing, and return the wallet's id.

    `permissions` also creates the admin's permissions for each model, which new changelogs may need. All
    commands run in one process, so that Django starts once.
    """
    wallet = _demo_wallet()
    has_wallet, has_admin = _find(env["DATABASE_URL"], wallet)
    commands = [["sync_permissions"]] if permissions else []
    names = ["permissions"] if permissions else []
    if not has_wallet:
        commands.append(["create_wallet", "--id", wallet, "--label", "demo", "--deposit", "1000"])
        names.append("demo wallet")
    if not has_admin:
        password = secrets.token_urlsafe(12)
        login = {"USERNAME": "admin", "PASSWORD": password, "EMAIL": "admin@localhost"}
        env = env | {f"DJANGO_SUPERUSER_{name}": value for name, value in login.items()}
        commands.append(["createsuperuser", "--noinput"])
        # Printed before the account is created, so that a kill leaves no account with an unknown password.
        names.append(f"operator `admin` with the password {password}")
    if commands:
        with step(f"Created: {', '.join(names)}"):
            run_commands(env, commands)
    return wallet


def run_commands(env: dict[str, str], commands: Sequence[Sequence[str]]) -> None:
    program = [sys.executable, "-m", "local.commands", *map(shlex.join, commands)]
    run(program, env=env, cwd=ROOT, explain=lambda output: f"manage.py failed: {error_line(output)}")


def _demo_wallet() -> str:
    path = STATE / "demo_wallet"
    if not path.exists():
        write(path, str(uuid.uuid4()))
    return path.read_text()


def _find(url: str, wallet: str) -> tuple[bool, bool]:
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            row = connection.execute(
                "SELECT EXISTS (SELECT FROM wallet WHERE id = %s AND sequence > 0),"
                " EXISTS (SELECT FROM wallet_user WHERE username = 'admin')",
                [wallet],
            ).fetchone()
    except psycopg.Error as error:
        raise LocalError(f"DATABASE_URL: {str(error).splitlines()[0]}") from error
    return row or (False, False)


def _require_application_role(url: str) -> None:
    """Create the role that the changelogs grant to, without a login: the service may use another role."""
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            found = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [APPLICATION]).fetchone()
            if found is None:
                connection.execute(f"CREATE ROLE {APPLICATION} NOLOGIN")
    except psycopg.errors.InsufficientPrivilege as error:
        raise LocalError(
            f"the role {APPLICATION} is missing: run liquibase/roles.sql as an administrator of the server"
        ) from error
    except psycopg.Error as error:
        raise LocalError(f"DATABASE_URL: {str(error).splitlines()[0]}") from error
