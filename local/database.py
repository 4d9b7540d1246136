"""Makes a database ready for the service: roles, changelogs, permissions, a demo wallet, an administrator."""

import os
import secrets
import uuid

import psycopg

from local import ROOT, STATE, LocalError, liquibase
from local.files import digest, write
from local.postgres import APPLICATION, OWNER, Cluster
from local.service import manage

SOURCES = (liquibase.FOLDER, ROOT / "wallets", ROOT / "walletsvc")
UNFINISHED = "unfinished"


def update_embedded(cluster: Cluster, env: dict[str, str]) -> None:
    """Nothing where no source has changed since the last time: a second start is quick."""
    stamp = cluster.folder / "sources"
    before = stamp.read_text() if stamp.exists() else ""
    now = digest(*SOURCES)
    if before == now:
        return
    print("Applying the changelogs", flush=True)
    write(stamp, UNFINISHED)
    cluster.prepare_roles()
    if (
        before == UNFINISHED
    ):  # killed, perhaps with Liquibase's lock taken; the folder's lock says nobody else has it
        liquibase.release_locks(cluster.url(OWNER))
    liquibase.update(cluster.url(OWNER))
    manage(env, "sync_permissions")
    write(stamp, now)


def update_external(env: dict[str, str]) -> None:
    owner = os.environ.get("DATABASE_OWNER_URL") or env["DATABASE_URL"]
    liquibase.connection(owner)  # before anything quotes a malformed one, password and all
    _require_application_role(owner)
    print("Applying the changelogs to the database of DATABASE_URL", flush=True)
    try:
        liquibase.update(owner)
    except LocalError as error:
        raise LocalError(
            f"{error} (as DATABASE_OWNER_URL, or as DATABASE_URL where that is unset)"
        ) from error
    manage(env, "sync_permissions")


def seed(env: dict[str, str]) -> str:
    """The id of the demo wallet, made with an administrator where this database has none."""
    wallet = _demo_wallet()
    has_wallet, has_admin = _find(env["DATABASE_URL"], wallet)
    if not has_wallet:
        print("Creating a demo wallet", flush=True)
        manage(env, "create_wallet", "--id", wallet, "--label", "demo", "--deposit", "1000")
    if not has_admin:
        password = secrets.token_urlsafe(12)
        # Said before it is done: whatever kills us, nobody is left with an account without a password.
        print(f"Creating the operator `admin` with the password {password} (shown only now)", flush=True)
        login = {"USERNAME": "admin", "PASSWORD": password, "EMAIL": "admin@localhost"}
        manage(env | {f"DJANGO_SUPERUSER_{k}": v for k, v in login.items()}, "createsuperuser", "--noinput")
    return wallet


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
    """The changelogs grant to it; where the service logs in as somebody else it need not log in."""
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
