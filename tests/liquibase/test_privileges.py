"""All privileges of the application's role, and secrets that no response contains."""

import re
from collections import deque
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from typing import Any, Final

import psycopg
import pytest
from django.test import Client

from local.postgres import APPLICATION, OWNER, SUPERUSER
from tests.access.test_rights import ROWS, Row, World, new_world
from tests.support.client import Api
from tests.support.cluster import cluster
from tests.support.keys import PASSWORD, hashed, new_operator, session_of

pytestmark = pytest.mark.usefixtures("quick_hashing")

READ = ("SELECT",)
ADD = ("SELECT", "INSERT")
ADD_AND_REMOVE = (*ADD, "DELETE")
EVERYTHING = (*ADD, "UPDATE", "DELETE")

# The grants on each table, and the columns with an UPDATE grant if not all have it. Add new grants here.
GRANTED: Final[dict[str, tuple[str, ...]]] = {
    "operation": ADD,
    "operation_id": ADD,
    "wallet": ADD,
    "wallet_change": ADD,
    "hold": ADD,
    "inbox": ADD_AND_REMOVE,
    "ledger_check": ADD,
    "keyed_request": ADD,
    "api_key": ADD,
    "rate_limit": EVERYTHING,
    "subscriber": EVERYTHING,
    "parked_event": EVERYTHING,
    "delivery": ADD_AND_REMOVE,
    "wallet_user": EVERYTHING,
    "wallet_user_groups": EVERYTHING,
    "wallet_user_user_permissions": EVERYTHING,
    "auth_group": EVERYTHING,
    "auth_group_permissions": EVERYTHING,
    "auth_permission": EVERYTHING,
    "django_content_type": EVERYTHING,
    "django_session": EVERYTHING,
    "django_admin_log": ADD,
    "axes_accessattempt": EVERYTHING,
    "axes_accessattemptexpiration": EVERYTHING,
    "axes_accessfailurelog": EVERYTHING,
    "axes_accesslog": ADD,
    "otp_static_staticdevice": EVERYTHING,
    "otp_static_statictoken": EVERYTHING,
    "otp_totp_totpdevice": EVERYTHING,
    "databasechangelog": READ,
    "databasechangeloglock": (),
}
CHANGEABLE: Final[dict[str, set[str]]] = {
    "wallet": {
        *("balance", "held", "sequence", "next_expiry_at", "hash", "updated_at"),
        *("status", "external_id", "label", "metadata", "owner_id", "overdraft_limit", "max_balance"),
    },
    "hold": {"status", "captured_amount", "operation_id", "ended_at"},
    "inbox": {"position", "attempts", "last_error", "next_attempt_at", "set_aside_at"},
    "api_key": {"revoked_at", "last_used_at"},
    "axes_accesslog": {"logout_time"},
}


TABLES = "relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')"
Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def server() -> Iterator[Connection]:
    """A connection as superuser, to read the whole catalogue."""
    with psycopg.connect(cluster.url(SUPERUSER), autocommit=True) as connection:
        yield connection


@pytest.fixture
def application() -> Iterator[Connection]:
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        yield connection


def columns_of(server: Connection, table: str) -> set[str]:
    found = server.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        [table],
    )
    return {name for (name,) in found}


# --- Grants -----------------------------------------------------------------------------------------
def test_table_grants_are_exactly_those_listed(server: Connection) -> None:
    """Includes grants to PUBLIC and to other roles that the role has."""
    granted = server.execute(
        "SELECT relname, array(SELECT privilege FROM unnest(%s::text[]) AS privilege"
        f"                      WHERE has_table_privilege(%s, oid, privilege)) FROM pg_class WHERE {TABLES}",
        [[*EVERYTHING, "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"], APPLICATION],
    ).fetchall()
    assert {table: tuple(privileges) for table, privileges in granted} == GRANTED


def test_column_grants_are_exactly_those_listed(server: Connection) -> None:
    granted = server.execute(
        "SELECT relname, privilege, array_agg(attname) FROM pg_class"
        " JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped"
        " CROSS JOIN unnest(%(privileges)s::text[]) AS privilege"
        f" WHERE {TABLES} AND NOT has_table_privilege(%(role)s, pg_class.oid, privilege)"
        "   AND has_column_privilege(%(role)s, pg_class.oid, attnum, privilege) GROUP BY 1, 2",
        {"privileges": [*ADD, "UPDATE", "REFERENCES"], "role": APPLICATION},
    ).fetchall()
    assert {(table, privilege): set(columns) for table, privilege, columns in granted} == {
        (table, "UPDATE"): columns for table, columns in CHANGEABLE.items()
    }


def test_inbox_failures_sequence_cannot_be_reset(server: Connection) -> None:
    granted = server.execute(
        "SELECT array(SELECT privilege FROM unnest(%s::text[]) AS privilege"
        "             WHERE has_sequence_privilege(%s, 'inbox_failures', privilege))",
        [["USAGE", "SELECT", "UPDATE"], APPLICATION],
    ).fetchone()
    assert granted == (["USAGE", "SELECT"],)


def test_no_other_role_has_grants_or_grant_options(server: Connection) -> None:
    granted = server.execute(
        "SELECT DISTINCT grantee::regrole::text, is_grantable FROM ("
        "  SELECT relacl AS acl FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        "  UNION ALL SELECT attacl FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        "             WHERE relnamespace = 'public'::regnamespace"
        "  UNION ALL SELECT nspacl FROM pg_namespace WHERE nspname = 'public'"
        "  UNION ALL SELECT datacl FROM pg_database WHERE datname = current_database()"
        "), aclexplode(acl) WHERE grantee <> %s::regrole",
        [OWNER],
    ).fetchall()
    assert granted == [(APPLICATION, False)]


def test_role_has_only_login_and_owns_nothing(server: Connection) -> None:
    assert server.execute(
        "SELECT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls"
        "  FROM pg_roles WHERE rolname = %s",
        [APPLICATION],
    ).fetchone() == (True, False, False, False, False, False)
    joined = "SELECT roleid::regrole FROM pg_auth_members WHERE member = %s::regrole"
    assert server.execute(joined, [APPLICATION]).fetchall() == []
    owned = "SELECT classid::regclass, objid FROM pg_shdepend WHERE refobjid = %s::regrole AND deptype = 'o'"
    assert server.execute(owned, [APPLICATION]).fetchall() == []


def test_no_function_is_security_definer(server: Connection) -> None:
    assert server.execute("SELECT oid::regprocedure FROM pg_proc WHERE prosecdef").fetchall() == []


# --- Refused statements -----------------------------------------------------------------------------
def assert_refused(application: Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        application.execute(statement)


@pytest.mark.parametrize("table", [table for table, granted in GRANTED.items() if granted != EVERYTHING])
def test_fixed_columns_and_rows_cannot_be_changed(
    application: Connection, server: Connection, table: str
) -> None:
    fixed = columns_of(server, table) - CHANGEABLE.get(table, set())
    assert fixed
    for column in fixed:
        assert_refused(application, f"UPDATE {table} SET {column} = DEFAULT")
    for verb in {"DELETE"} - set(GRANTED[table]):
        assert_refused(application, f"{verb} FROM {table}")


@pytest.mark.parametrize("table", GRANTED)
def test_tables_cannot_be_truncated_altered_or_dropped(application: Connection, table: str) -> None:
    for statement in (
        f"TRUNCATE {table} CASCADE",
        f"DROP TABLE {table} CASCADE",
        f"ALTER TABLE {table} ADD x int",
        f"ALTER TABLE {table} DISABLE TRIGGER ALL",
        f"ALTER TABLE {table} OWNER TO {APPLICATION}",
        f"CREATE INDEX ON {table} ((1))",
        f"CREATE TRIGGER x BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        f"CREATE RULE x AS ON INSERT TO {table} DO INSTEAD NOTHING",
    ):
        assert_refused(application, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE operation DROP CONSTRAINT operation_amount_positive",
        "ALTER TABLE wallet DROP CONSTRAINT wallet_available_within_overdraft_limit",
        "BEGIN; LOCK TABLE operation IN ACCESS EXCLUSIVE MODE",
        "SET session_replication_role = replica",  # it disables triggers and foreign keys
        "CREATE TABLE x (y int)",
        "CREATE TEMPORARY TABLE wallet (y int)",  # it would hide the real table
        "CREATE SCHEMA x",
        "CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT NULL::timestamptz $$",
        "CREATE PUBLICATION x FOR TABLE operation",
        f"SET ROLE {OWNER}",
        f"SET ROLE {SUPERUSER}",
        f"SET SESSION AUTHORIZATION {SUPERUSER}",
        f"GRANT {OWNER} TO {APPLICATION}",
        f"GRANT pg_write_all_data TO {APPLICATION}",
        f"ALTER ROLE {OWNER} PASSWORD 'x'",
        *(
            f"ALTER ROLE {APPLICATION} {attribute}"
            for attribute in ("SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS")
        ),
        "CREATE ROLE x",
        "CREATE DATABASE x",
        f"ALTER DATABASE {cluster.url().rpartition('/')[2]} SET synchronous_commit = off",
        "ALTER SYSTEM SET fsync = off",
        "CHECKPOINT",
        "SELECT pg_reload_conf()",
        "SELECT pg_switch_wal()",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_shadow",
        "SELECT * FROM pg_hba_file_rules",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT pg_ls_dir('.')",
        "SELECT lo_import('/etc/passwd')",
        "COPY operation FROM '/etc/passwd'",
        "COPY wallet TO '/dev/null'",
        "COPY wallet TO PROGRAM 'true'",
        "COPY operation FROM PROGRAM 'true'",
    ],
)
def test_forbidden_statement_is_refused(application: Connection, statement: str) -> None:
    assert_refused(application, statement)


# --- Secrets in responses ---------------------------------------------------------------------------
def contains_password(content: str) -> bool:
    """Search for the password and its hash, which all operators of these tests share."""
    _, _, salt, digest = hashed().split("$")
    return any(secret in content for secret in (PASSWORD, salt, digest.rstrip("=")))


@pytest.fixture(scope="module")
def world() -> World:
    return new_world()


@pytest.fixture(scope="module")
def superuser() -> Any:
    return new_operator(is_superuser=True)


PRINCIPALS = ("an admin key", "the owner, logged in", "a superuser")


@pytest.mark.parametrize("principal", PRINCIPALS)
@pytest.mark.parametrize("line", ROWS)
@pytest.mark.slow
def test_api_responses_contain_no_password_or_hash(
    world: World, superuser: Any, line: str, principal: str
) -> None:
    row: Row = ROWS[line]
    clients = (world.bank, session_of(world.user), session_of(superuser))
    api = dict(zip(PRINCIPALS, clients, strict=True))[principal]
    answer = row.send(line.split(maxsplit=1)[0], api, world.ids)
    assert answer.status != 500
    assert not contains_password(answer.content.decode())
    assert '"password"' not in answer.content.decode()


def test_openapi_responses_have_no_password_property() -> None:
    document = Api().sender.send("GET", "/api/schema", headers={"Accept": "application/json"}).json
    names = {
        name
        for item in document["paths"].values()
        for operation in item.values()
        for answer in operation["responses"].values()
        for name in names_in(answer, document, set())
    }
    assert {"balance", "email"} <= names
    assert [name for name in names if re.search("passw|hash|digest", name, re.IGNORECASE)] == []


def names_in(node: Any, document: Any, seen: set[str]) -> Iterator[str]:
    """Yield the properties of a schema, and of the schemas that it refers to."""
    match node:
        case {"$ref": str(reference)} if reference not in seen:
            seen.add(reference)
            yield from names_in(reduce(getitem, reference.split("/")[1:], document), document, seen)
        case dict():
            yield from node.get("properties", {})
            for each in node.values():
                yield from names_in(each, document, seen)
        case list():
            for each in node:
                yield from names_in(each, document, seen)


def kind_of(address: str) -> str:
    """Return the address without ids and query: pages of different objects are of one kind."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|(?<=/)\d+(?=/)", "{id}", address.partition("?")[0])


def linked(address: str, content: str) -> list[str]:
    found = re.findall(r'href="(/admin/[^"#]*)"', content)
    return [link.replace("&amp;", "&") for link in found] + [
        f"{address}{link}" for link in re.findall(r'href="(\?[^"#]*)"', content)[:3]
    ]


@pytest.mark.slow
def test_admin_pages_contain_no_password_hash(world: World, superuser: Any) -> None:
    """Visits every kind of page that links lead to, and the pages of an operator's account."""
    client = Client()
    client.force_login(superuser, backend="django.contrib.auth.backends.ModelBackend")
    of_superuser = f"/admin/wallets/user/{superuser.pk}/change/"
    unlinked = of_superuser.replace("change", "password")
    pending, visited = deque(["/admin/", of_superuser, unlinked]), set[str]()
    while pending:
        address = pending.popleft()
        if (kind := kind_of(address)) in visited:
            continue
        visited.add(kind)
        response = client.get(address)
        assert response.status_code in (200, 302, 405), address
        if not response.headers.get("Content-Type", "").startswith("text/html"):
            continue
        content = response.content.decode()
        assert not contains_password(content), address
        pending.extend(linked(address, content))
    assert {kind_of(of_superuser), "/admin/wallets/wallet/{id}/change/", "/admin/auth/group/"} <= visited
    assert client.get(of_superuser).status_code == 200  # no visited page has ended the session
