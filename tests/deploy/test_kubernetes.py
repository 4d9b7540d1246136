"""The Kubernetes manifests: built with kubectl, validated against schemas, consistent with the service."""

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from django.core.management import get_commands

from local import ROOT
from tests.walletsvc.test_configuration import (
    MANAGE,
    REQUIRED,
    example,
    max_relay_stop_seconds,
    run,
    settings_read,
)

pytestmark = pytest.mark.slow

FOLDER = ROOT / "deploy/kubernetes"
OLDEST, NEWEST = "1.30.0", "1.37.0"  # 1.30 is the first with a preStop sleep
PROBES = {"startupProbe", "readinessProbe", "livenessProbe"}
WORKERS = {"web", "inbox", "relay"}
JOBS = {"schema", "verify-ledger", "clear-sessions"}


def tool(name: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a program from a package of requirements-dev.txt."""
    command = [str(Path(sys.executable).with_name(name)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@cache
def built() -> str:
    done = tool("kubectl", "kustomize", FOLDER / "overlays/example")
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def resources() -> list[Any]:
    return list(yaml.safe_load_all(built()))


@cache
def secrets() -> dict[str, dict[str, str]]:
    documents = yaml.safe_load_all((FOLDER / "secrets.example.yaml").read_text())
    return {secret["metadata"]["name"]: secret["stringData"] for secret in documents}


def find(kind: str, name: str) -> Any:
    return next(found for found in of_kind(kind) if found["metadata"]["name"] == name)


def of_kind(kind: str) -> list[Any]:
    return [resource for resource in resources() if resource["kind"] == kind]


@cache
def settings() -> dict[str, str]:
    """Return the service's settings, with defaults for unset ones."""
    given = (found for found in of_kind("ConfigMap") if found["metadata"]["name"].startswith("walletsvc-"))
    return {name: default or "" for name, default in settings_read().items()} | dict(next(given)["data"])


class Workload(NamedTuple):
    name: str
    template: Any

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.template["metadata"]["labels"]
        return labels

    @property
    def pod(self) -> Any:
        return self.template["spec"]

    @property
    def containers(self) -> list[Any]:
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]


def workloads() -> list[Workload]:
    specs = {
        resource["metadata"]["name"]: resource["spec"].get("jobTemplate", resource)["spec"]
        for kind in ("Deployment", "Job", "CronJob")
        for resource in of_kind(kind)
    }
    return [Workload(name, spec["template"]) for name, spec in specs.items()]


def workload(name: str) -> Workload:
    return next(found for found in workloads() if found.name == name)


def containers() -> Iterator[tuple[Workload, Any]]:
    for found in workloads():
        for container in found.containers:
            yield found, container


# --- Validity ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("what", ["overlay", "secrets"])
def test_the_manifests_are_valid(version: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "manifests.yaml"
    path.write_text(built() if what == "overlay" else (FOLDER / "secrets.example.yaml").read_text())
    done = tool("kubernetes-validate", "--strict", "--kubernetes-version", version, path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_manifest_with_an_unknown_field_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "manifests.yaml"
    path.write_text(built().replace("readOnlyRootFilesystem:", "readOnlyRootFileSystem:", 1))
    assert tool("kubernetes-validate", "--strict", path).returncode != 0


def test_manifests_have_the_expected_workloads() -> None:
    assert {found["metadata"]["name"] for found in of_kind("Deployment")} == WORKERS
    assert {found.name for found in workloads()} == WORKERS | JOBS
    for _, container in containers():
        if command := container.get("command"):
            assert command[:2] == ["python", "manage.py"]
            assert command[2] in get_commands()


def test_every_selector_matches_pods() -> None:
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        for found in of_kind(kind):
            selector = found["spec"].get("podSelector", found["spec"].get("selector"))
            assert selected_by(selector), found["metadata"]["name"]
    assert selected_by(find("Service", "web")["spec"]["selector"]) == {"web"}


def selected_by(selector: dict[str, Any]) -> set[str]:
    """Return the workloads whose pods match; a Service's selector consists of labels only."""
    wanted = selector.get("matchLabels", selector)
    return {
        found.name
        for found in workloads()
        if wanted.items() <= found.labels.items()
        and all(found.labels[each["key"]] in each["values"] for each in selector.get("matchExpressions", []))
    }


# --- Settings ---------------------------------------------------------------------------------------
def test_every_setting_is_in_env_example() -> None:
    assert set(settings()) <= set(example())
    assert set(settings()) == set(settings_read())
    assert set(secrets()["walletsvc"]) <= set(settings_read())
    assert set(REQUIRED) <= set(secrets()["walletsvc"])


def test_every_referenced_resource_exists() -> None:
    there = {found["metadata"]["name"] for found in of_kind("ConfigMap")} | set(secrets())
    for found, container in containers():
        sources = [next(iter(source.values()))["name"] for source in container["envFrom"]]
        mounted = [volume["configMap"]["name"] for volume in found.pod["volumes"] if "configMap" in volume]
        assert {*sources, *mounted} <= there
        assert ("walletsvc-owner" in sources) == (container["name"] == "liquibase")


def test_settings_are_a_valid_configuration() -> None:
    given = {name: value for name, value in settings().items() if value}
    assert run(MANAGE, given | REQUIRED).returncode == 0


def test_example_secrets_are_refused() -> None:
    done = run(MANAGE, secrets()["walletsvc"])
    assert "SECRET_KEY: " in done.stderr


def test_database_certificate_authorities_exist_in_the_images() -> None:
    assert secrets()["walletsvc"]["DATABASE_URL"].endswith(
        "?sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt"
    )
    assert secrets()["walletsvc-owner"]["LIQUIBASE_COMMAND_URL"].endswith(
        "?sslmode=verify-full&sslfactory=org.postgresql.ssl.DefaultJavaSSLFactory"
    )


def test_liquibase_finds_every_changelog_by_its_recorded_name() -> None:
    """The name is relative to the search path, as with compose and `make run`."""
    pod = workload("schema").pod
    liquibase = pod["initContainers"][0]
    environment = {variable["name"]: variable["value"] for variable in liquibase["env"]}
    assert environment["LIQUIBASE_COMMAND_CHANGELOG_FILE"] == "changelog.yaml"
    volumes = {volume["name"]: volume.get("configMap", {}).get("name") for volume in pod["volumes"]}
    found = {}
    for mount in liquibase["volumeMounts"]:
        for file, text in find_data(volumes[mount["name"]]).items():
            path = Path(mount["mountPath"], "" if mount.get("subPath") == file else file)
            found[path.relative_to(environment["LIQUIBASE_SEARCH_PATH"])] = text
    folder = ROOT / "liquibase"
    changelogs = [folder / "changelog.yaml", *(folder / "changes").iterdir()]
    assert found == {path.relative_to(folder): path.read_text() for path in changelogs}


def find_data(config_map: str | None) -> dict[str, str]:
    data: dict[str, str] = find("ConfigMap", config_map)["data"] if config_map else {}
    return data


# --- Privileges -----------------------------------------------------------------------------------
def test_every_pod_has_minimal_privileges() -> None:
    for found in workloads():
        assert found.pod["automountServiceAccountToken"] is False, found.name
        assert found.pod["enableServiceLinks"] is False, found.name
        context = found.pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert (context["runAsUser"], context["runAsGroup"]) == (10001, 10001)  # the user of the Dockerfile
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(found.pod)


def test_every_container_has_minimal_privileges() -> None:
    for found, container in containers():
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True, (found.name, container["name"])
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context.get("runAsUser") != 0
        volumes = {volume["name"]: volume for volume in found.pod["volumes"]}
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]  # noqa: S108
        assert volumes["tmp"]["emptyDir"]["sizeLimit"]
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert set(container["resources"]["limits"]) == {"memory"}


def test_dockerfile_has_the_user_and_port_of_the_pods() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "USER 10001:10001" in lines
    port = workload("web").pod["containers"][0]["ports"][0]["containerPort"]
    assert f"EXPOSE {port}" in lines


def test_every_image_has_a_version() -> None:
    images = {container["name"]: container["image"] for _, container in containers()}
    assert set(images) == {"walletsvc", "wait", "liquibase"}
    for image in images.values():
        assert image.rpartition(":")[2] not in (image, "", "latest")
    assert images["liquibase"] == example()["LIQUIBASE_IMAGE"]
    assert images["wait"] == images["walletsvc"]


def reachable_by(name: str, address: str, port: int) -> bool:
    return any(
        _is_in(peer["ipBlock"], address)
        for policy in of_kind("NetworkPolicy")
        if name in selected_by(policy["spec"]["podSelector"])
        for rule in policy["spec"].get("egress", [])
        if port in [entry["port"] for entry in rule["ports"]]
        for peer in rule["to"]
        if "ipBlock" in peer
    )


def _is_in(block: dict[str, Any], address: str) -> bool:
    excepted = any(ip_address(address) in ip_network(network) for network in block.get("except", []))
    return ip_address(address) in ip_network(block["cidr"]) and not excepted


PUBLIC = ("1.1.1.1", "2606:4700:4700::1111")
PRIVATE = (
    *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.31.0.1", "192.168.0.1"),  # noqa: S104
    *("::1", "fd00::1", "fe80::1", "64:ff9b::a00:1"),
)


def test_webhooks_reach_only_public_addresses() -> None:
    addresses = (*PUBLIC, *PRIVATE)
    reached = {
        found.name: [address for address in addresses if reachable_by(found.name, address, 443)]
        for found in workloads()
    }
    assert reached == {name: [] for name in reached} | {"relay": [*PUBLIC], "web": [*PUBLIC]}


def test_only_the_web_accepts_connections() -> None:
    all_pods = find("NetworkPolicy", "all-pods")["spec"]
    assert selected_by(all_pods["podSelector"]) == WORKERS | JOBS
    assert all_pods["policyTypes"] == ["Ingress", "Egress"]
    open_policies = [policy["spec"] for policy in of_kind("NetworkPolicy") if "ingress" in policy["spec"]]
    assert [selected_by(policy["podSelector"]) for policy in open_policies] == [{"web"}]


# --- Start and shutdown -----------------------------------------------------------------------------
def test_only_the_web_has_probes() -> None:
    for name in WORKERS:
        (container,) = workload(name).pod["containers"]
        reason = workload(name).template["metadata"].get("annotations", {}).get("no-probe")
        assert bool(PROBES & set(container)) != bool(reason), name
    assert set(workload("web").pod["containers"][0]) >= PROBES


def test_readiness_survives_a_database_restart() -> None:
    """Requests wait for the database; after OPERATION_DEADLINE they get a problem document."""
    probe = workload("web").pod["containers"][0]["readinessProbe"]
    patience = (probe["failureThreshold"] - 1) * probe["periodSeconds"]
    assert probe["httpGet"] == {"path": "/readyz", "port": "http"}
    assert patience > int(settings()["OPERATION_DEADLINE"])


def test_liveness_restarts_only_unresponsive_processes() -> None:
    container = workload("web").pod["containers"][0]
    for probe in (container["startupProbe"], container["livenessProbe"]):
        assert probe["httpGet"] == {"path": "/livez", "port": "http"}
    liveness = container["livenessProbe"]
    assert liveness["failureThreshold"] * liveness["periodSeconds"] >= int(settings()["WORKER_TIMEOUT"])


def test_grace_period_covers_requests_in_flight() -> None:
    pod = workload("web").pod
    terminating_seconds = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert terminating_seconds >= 5  # until every node has removed the pod
    assert pod["terminationGracePeriodSeconds"] > terminating_seconds + int(settings()["GRACEFUL_TIMEOUT"])


def test_relay_grace_period_covers_its_current_batch() -> None:
    assert workload("relay").pod["terminationGracePeriodSeconds"] > max_relay_stop_seconds()


def test_update_keeps_old_pods_until_replacements_are_ready() -> None:
    assert find("Deployment", "web")["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 1,
        "maxUnavailable": 0,
    }
    for name in WORKERS:
        assert workload(name).pod["initContainers"][0]["command"] == [
            *("python", "manage.py", "wait_for_db"),
            "--timeout=3600",  # as long as a migration may take
        ]


def test_finished_schema_job_is_deleted() -> None:
    """A Job cannot be changed, so Kubernetes must delete it after its end."""
    assert find("Job", "schema")["spec"]["ttlSecondsAfterFinished"] == 3600


def surge(name: str) -> int:
    """Return the number of extra pods in an update; maxSurge excludes terminating ones."""
    spec = find("Deployment", name)["spec"]
    starting: int = spec["strategy"]["rollingUpdate"]["maxSurge"]
    terminating_seconds = 1  # usually one: minReadySeconds is longer than preStop
    assert spec["minReadySeconds"] == 15
    return starting + terminating_seconds


def test_scaling_sets_the_replicas_within_the_connection_limit() -> None:
    scaling = find("HorizontalPodAutoscaler", "web")["spec"]
    assert "replicas" not in find("Deployment", "web")["spec"]
    number = {name: int(value) for name, value in settings().items() if value.isdecimal()}
    own_of_the_ledger, to_spare = 2, 10
    of_a_command = number["DATABASE_POOL_MAX"] + 1
    of_the_web = number["WORKERS"] * (number["DATABASE_POOL_MAX"] + own_of_the_ledger)
    of_a_pod = {"web": of_the_web, "inbox": of_a_command, "relay": of_a_command}
    pods = {
        name: find("Deployment", name)["spec"].get("replicas", scaling["maxReplicas"]) for name in WORKERS
    }
    most = sum((pods[name] + surge(name)) * of_a_pod[name] for name in WORKERS)
    assert most + to_spare <= int(example()["POSTGRES_MAX_CONNECTIONS"])
