"""The embedded PostgreSQL: roles, locks, and a start after a killed run."""

import os
import stat
from pathlib import Path

import psycopg
import pytest

from local import LocalError, template
from local.postgres import APPLICATION, OWNER, SUPERUSER, Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return template.copy(tmp_path / "cluster")


def query(cluster: Cluster, statement: str, role: str = APPLICATION) -> object:
    with psycopg.connect(cluster.url(role)) as connection:
        row = connection.execute(statement).fetchone()
        return row and row[0]


def test_server_settings_are_durable(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.create()
    with cluster, psycopg.connect(cluster.url(SUPERUSER, "postgres")) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
            assert connection.execute(f"SHOW {setting}").fetchone() == ("on",)


def test_every_role_logs_in_with_its_own_password(cluster: Cluster) -> None:
    with cluster:
        for role in (SUPERUSER, OWNER, APPLICATION):
            assert query(cluster, "SELECT current_user", role) == role
            file = cluster.folder / "passwords" / role
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(cluster.url().replace(APPLICATION, OWNER))


@pytest.mark.parametrize("statement", ["CREATE TABLE mine (id int)", "CREATE TEMP TABLE mine (id int)"])
def test_application_role_cannot_create_tables(cluster: Cluster, statement: str) -> None:
    with cluster, pytest.raises(psycopg.errors.InsufficientPrivilege):
        query(cluster, statement)


def test_roles_can_be_prepared_again(cluster: Cluster) -> None:
    with cluster:
        (cluster.folder / "passwords" / APPLICATION).unlink()  # so that prepare_roles creates another
        cluster.prepare_roles()
        assert query(cluster, "SELECT current_user") == APPLICATION


def test_folder_has_one_server(cluster: Cluster) -> None:
    with cluster, pytest.raises(LocalError, match="already running"):
        Cluster(cluster.folder).start()


def test_server_of_a_killed_supervisor_is_replaced(cluster: Cluster) -> None:
    cluster.start()
    assert cluster.process
    assert cluster._lock
    cluster._lock.close()  # as the kernel does when a process is killed
    with Cluster(cluster.folder) as successor:
        assert cluster.process.wait() == 0
        assert query(successor, "SELECT 1") == 1


def test_pid_file_of_another_process_does_not_prevent_a_start(cluster: Cluster) -> None:
    (cluster.data / "postmaster.pid").write_text(f"{os.getpid()}\n{cluster.data}\n")
    with cluster:
        assert query(cluster, "SELECT 1") == 1


def test_interrupted_creation_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "new-interrupted" / "data").mkdir(parents=True)
    cluster = Cluster(tmp_path)
    cluster.create()
    cluster.stop()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "lock", "passwords"]


def test_failed_start_states_the_reason(cluster: Cluster) -> None:
    cluster.parameters["shared_buffers"] = "many"
    with pytest.raises(LocalError, match='does not start: .*invalid value for parameter "shared_buffers"'):
        cluster.start()
    cluster.stop()


def test_uncreatable_folder_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match=r"^Not a directory: .*/file/cluster$"):
        Cluster(tmp_path / "file" / "cluster").create()
