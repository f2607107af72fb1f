"""The plain manifests as they are written: they agree with each other, and with the server."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from convserve.settings import DEFAULT_TIMEOUT_S
from convserve_server.host.resources import MIB, plan_resources
from convserve_server.protocols.health import LIVE
from convserve_server.settings.settings import make_settings
from tests.kubernetes.manifests import PLAIN, ROOT, Object, container, files, objects, the

BASE = [
    one for file in sorted((PLAIN / "base").glob("*.yaml")) for one in objects(file.read_text())
]
DEPLOYMENT = the("Deployment", BASE)
SERVER = container(DEPLOYMENT)
POD = DEPLOYMENT["spec"]["template"]
LABELS = POD["metadata"]["labels"]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
JOB = objects((PLAIN / "jobs/train.yaml").read_text())[0]

#: Until the supervisor kills a worker that hangs at the end, s; process/supervisor.py.
KILL_AFTER_S = 5


def test_every_manifest_can_be_read_and_has_a_name() -> None:
    found = [one for file in files() for one in objects(file.read_text())]
    assert len(found) > 10
    for one in found:
        assert one["metadata"]["name"]
        assert one["apiVersion"]


def checked(folder: Path) -> dict[str, Any]:
    """The settings of convserve.toml by their names, as the server reads them, here."""
    command = [sys.executable, "-m", "convserve_server.main", "--check", "--format", "json"]
    flags = ["--config", str(PLAIN / "base/convserve.toml"), "--models", str(folder)]
    done = subprocess.run(
        [*command, *flags, "--host", "0.0.0.0"], capture_output=True, text=True, timeout=120,
        env={"PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return {
        name: one["value"]
        for section in found["settings"].values()
        for name, one in section.items()
    }


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return checked(tmp_path_factory.mktemp("models"))


def test_ports_of_the_container_are_those_that_the_server_opens(settings: dict[str, Any]) -> None:
    ports = {port["name"]: port["containerPort"] for port in SERVER["ports"]}
    opened = {name: settings[f"{name}_port".removeprefix("grpc_")] for name in ports}
    assert ports == opened
    assert settings["metrics_host"] == "0.0.0.0"


def test_service_policy_and_monitor_name_ports_that_there_are() -> None:
    ports = {port["name"]: port["containerPort"] for port in SERVER["ports"]}
    service = the("Service", BASE)
    assert service["spec"]["clusterIP"] == "None"
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    policy = the("NetworkPolicy", BASE)["spec"]
    allowed = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
    assert allowed == set(ports)
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    monitor = monitoring()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    # The rules of deploy/monitoring count on the job, which is the service's name.
    assert service["metadata"]["name"] == "convserve"


def monitoring() -> Any:
    return objects((PLAIN / "components/monitoring/service-monitor.yaml").read_text())[0]


def test_selectors_choose_the_pods() -> None:
    selectors = [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        the("Service", BASE)["spec"]["selector"],
        the("PodDisruptionBudget", BASE)["spec"]["selector"]["matchLabels"],
        the("NetworkPolicy", BASE)["spec"]["podSelector"]["matchLabels"],
        *(one["labelSelector"]["matchLabels"] for one in POD["spec"]["topologySpreadConstraints"]),
    ]
    assert all(selector and selector.items() <= LABELS.items() for selector in selectors)
    # The job that trains serves nothing.
    assert not selectors[0].items() <= JOB["spec"]["template"]["metadata"]["labels"].items()


def test_names_that_objects_refer_to_are_there() -> None:
    names = {(one["kind"], one["metadata"]["name"]) for one in BASE if "metadata" in one}
    spec = POD["spec"]
    assert ("ServiceAccount", spec["serviceAccountName"]) in names
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for pod in (spec, JOB["spec"]["template"]["spec"])
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert {("PersistentVolumeClaim", claim) for claim in claims} <= names
    for pod in (DEPLOYMENT, JOB):
        volumes = {volume["name"] for volume in pod["spec"]["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container(pod)["volumeMounts"]} == volumes
    (scaled,) = objects((PLAIN / "components/autoscaling/scaled-object.yaml").read_text())
    assert scaled["spec"]["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    (generated,) = the("Kustomization", BASE)["configMapGenerator"]
    (settings_volume,) = [one["configMap"] for one in spec["volumes"] if "configMap" in one]
    assert generated["name"] == settings_volume["name"]
    (path,) = [one["value"] for one in SERVER["env"] if one["name"] == "CONVSERVE_CONFIG"]
    (mount,) = [one for one in SERVER["volumeMounts"] if one["name"] == "settings"]
    assert [f"{mount['mountPath']}/{name}" for name in generated["files"]] == [path]


def test_grace_period_is_longer_than_the_delay_and_the_longest_deadline(
    settings: dict[str, Any],
) -> None:
    stopped_s = settings["shutdown_delay_s"] + settings["grace_s"] + KILL_AFTER_S
    assert POD["spec"]["terminationGracePeriodSeconds"] > stopped_s
    # Of our clients, if they do not say; docs/kubernetes.md says what else to change for more.
    assert settings["grace_s"] >= DEFAULT_TIMEOUT_S
    # Unready pods leave the name within this.
    assert settings["shutdown_delay_s"] >= 10
    (inference,) = objects((PLAIN / "kserve/inference-service.yaml").read_text())
    (runtime,) = objects((PLAIN / "kserve/serving-runtime.yaml").read_text())
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in runtime_args(runtime))
    grace_s = make_settings(models="m").process.grace_s
    stopped_s = float(flags["shutdown-delay-s"]) + grace_s + KILL_AFTER_S
    assert inference["spec"]["predictor"]["terminationGracePeriodSeconds"] > stopped_s


def runtime_args(runtime: Object) -> list[str]:
    (one,) = runtime["spec"]["containers"]
    return list(one["args"])


def test_probes_ask_what_the_server_answers() -> None:
    for probe, service in (("startupProbe", LIVE), ("livenessProbe", LIVE), ("readinessProbe", "")):
        asked = SERVER[probe]["grpc"]
        assert asked.get("service", "") == service
        assert asked["port"] == 50051
    # As long as one model of several may take to load, several times over.
    startup = SERVER["startupProbe"]
    load_s = make_settings(models="m").models.load_timeout_s
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 10 * load_s


def test_job_that_trains_does_what_docker_compose_does() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert container(JOB)["args"] == compose["services"]["trainer"]["command"]


def restricted(pod: Object) -> list[str]:
    """What Kubernetes' standard "restricted" for pods would refuse, and our own wishes.

    Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    found = []
    context = pod.get("securityContext", {})
    for one in pod["containers"]:
        own = {**context, **one["securityContext"]}
        if own.get("runAsNonRoot") is not True:
            found.append("root")
        if own.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            found.append("seccomp")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("privileges")
        if own.get("capabilities") != {"drop": ["ALL"]}:
            found.append("capabilities")
        if own.get("readOnlyRootFilesystem") is not True:
            found.append("file system")
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
    found += [str(one) for one in pod.get("volumes", []) if not (set(one) - {"name"}) <= allowed]
    return found


def test_pods_are_restricted() -> None:
    (runtime,) = objects((PLAIN / "kserve/serving-runtime.yaml").read_text())
    pods = (POD["spec"], JOB["spec"]["template"]["spec"])
    assert [restricted(pod) for pod in (*pods, runtime["spec"])] == [[], [], []]
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        context = pod["securityContext"]
        user = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
        assert set(user) == {(str(context["runAsUser"]), str(context["runAsGroup"]))}


def test_restricted_finds_what_is_wrong() -> None:
    bare = {"containers": [{"securityContext": {}}], "volumes": [{"name": "a", "hostPath": {}}]}
    assert len(restricted(bare)) == 6


def test_variables_are_settings_of_the_server() -> None:
    known = {f"CONVSERVE_{name.upper()}" for name, _ in make_settings(models="m").items()}
    found = {
        variable["name"]
        for file in sorted(PLAIN.rglob("deployment.yaml"))
        for one in objects(file.read_text())
        for variable in container(one)["env"]
        if variable["name"].startswith("CONVSERVE_")
    }
    assert len(found) > 5
    assert found <= known | {"CONVSERVE_CONFIG"}


def test_limits_give_two_workers_without_a_warning() -> None:
    limits = SERVER["resources"]["limits"]
    # So the pod is of the class "Guaranteed", the last to be evicted.
    assert limits == SERVER["resources"]["requests"]
    assert limits["memory"] == "1Gi"
    settings = make_settings(models="m", host="0.0.0.0", insecure=True)
    plan = plan_resources(settings, float(limits["cpu"]), 1024 * MIB)
    assert plan.settings.process.workers == int(limits["cpu"]) == 2
    assert plan.memory_warning() == ""
