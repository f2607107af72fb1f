"""Manifests and chart against the schemas of Kubernetes, as kubectl and helm render them."""

import itertools
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from tests.kubernetes.conftest import Render
from tests.kubernetes.manifests import (
    CHART,
    ENVIRONMENT,
    PLAIN,
    TOOLS,
    Object,
    chart,
    container,
    files,
    kustomized,
    objects,
    run,
    the,
)
from tests.pages import blocks

pytestmark = [pytest.mark.kubernetes, pytest.mark.usefixtures("_tools")]

#: The oldest whose schemas there are, of those that docs/kubernetes.md names, and the newest.
VERSIONS = ("1.27", "1.37")
#: Kinds of programs that a cluster may have beside Kubernetes; no schema of them is here.
OTHERS = {"ScaledObject", "ServiceMonitor", "ServingRuntime", "InferenceService"}
COMPONENTS = sorted(one.name for one in (PLAIN / "components").iterdir())


def core_of(one: Object) -> list[Object]:
    """Returns what of an object has a schema: itself, of a JobSet its Jobs, or nothing."""
    if one["kind"] != "JobSet":
        return [] if one["kind"] in OTHERS else [one]
    return [
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": each["name"]}}
        | each["template"]
        for each in one["spec"]["replicatedJobs"]
    ]


def validate(folder: Path, found: Sequence[Object], version: str) -> None:
    """Checks objects against the schemas of a version, and that those without one are known."""
    core = [each for one in found for each in core_of(one)]
    assert core
    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all(core))
    command = [ENVIRONMENT / "bin/kubernetes-validate", "--strict", "-k", version, file]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed for resource ") == len(core), done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_plain_manifests_are_valid(tmp_path: Path, version: str) -> None:
    written = [*files(), *PLAIN.parent.rglob("kubernetes.yaml")]
    if version != VERSIONS[-1]:
        # Their policies for pods that fail are of later versions.
        written = [file for file in written if file.parent.name != "jobs"]
    found = [one for file in written for one in objects(file.read_text())]
    validate(tmp_path, found, version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "components",
    [
        some
        for count in range(len(COMPONENTS) + 1)
        for some in itertools.combinations(COMPONENTS, count)
        if count <= 1 or count == len(COMPONENTS)
    ],
    ids=lambda some: "+".join(some) or "base",
)
def test_components_render_and_are_valid(
    render: Render, tmp_path: Path, components: tuple[str, ...], version: str
) -> None:
    validate(tmp_path, render(*components), version)


def test_example_of_an_overlay_renders(tmp_path: Path) -> None:
    found = kustomized(PLAIN / "example")
    validate(tmp_path, found, VERSIONS[-1])
    assert {one["metadata"]["namespace"] for one in found} == {"convserve"}
    assert container(the("Deployment", found))["image"] == (
        "registry.example.org/convserve-server:0.1.0"
    )


def test_a_wrong_manifest_is_not_valid(tmp_path: Path) -> None:
    wrong = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a"},
        "spec": {"prots": []},
    }
    with pytest.raises(AssertionError, match="prots"):
        validate(tmp_path, [wrong], VERSIONS[-1])


def test_other_settings_get_another_name_and_so_replace_the_pods(render: Render) -> None:
    found = render()
    name = the("ConfigMap", found)["metadata"]["name"]
    assert re.fullmatch(r"convserve-\w{10}", name)
    (used,) = [
        volume["configMap"]["name"]
        for volume in the("Deployment", found)["spec"]["template"]["spec"]["volumes"]
        if "configMap" in volume
    ]
    assert used == name


def test_autoscaling_leaves_the_number_of_pods_to_keda(render: Render) -> None:
    assert the("Deployment", render())["spec"]["replicas"] == 2
    scaled = render("autoscaling")
    assert "replicas" not in the("Deployment", scaled)["spec"]
    assert the("ScaledObject", scaled)["spec"]["minReplicaCount"] == 2


def test_tls_changes_probes_ports_and_the_monitor(render: Render) -> None:
    found = render("monitoring", "tls")
    server = container(the("Deployment", found))
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert "grpc" not in server[probe]
        assert server[probe]["httpGet"]["scheme"] == "HTTPS"
    (endpoint,) = the("ServiceMonitor", found)["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"


def test_gpu_asks_for_one(render: Render) -> None:
    server = container(the("Deployment", render("gpu")))
    assert server["image"] == "convserve-server-gpu"
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert server["resources"]["limits"] == server["resources"]["requests"]


def test_models_on_object_storage_need_no_claim(render: Render) -> None:
    found = render("object-storage")
    assert "PersistentVolumeClaim" not in by_kind(found)
    deployment = the("Deployment", found)
    volumes = {volume["name"] for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container(deployment)["volumeMounts"]}
    assert volumes == mounts.keys() == {"settings", "copies"}
    assert mounts["copies"] == "/tmp"
    (egress,) = the("NetworkPolicy", found)["spec"]["egress"]
    assert {port["port"] for port in egress["ports"]} == {53, 443}


def test_rules_of_prometheus_become_objects_as_the_docs_say() -> None:
    page = (PLAIN.parents[1] / "docs/kubernetes.md").read_text()
    (block,) = [one.code for one in blocks(page) if "PrometheusRule" in one.code]
    # What would be applied is printed.
    script = f"kubectl() {{ cat; }}; {block}"
    found = objects(run("bash", "-euc", script))
    assert [one["metadata"]["name"] for one in found] == ["convserve-recording", "convserve-alerts"]
    for one, name in zip(found, ("recording", "alerts"), strict=True):
        assert one["kind"] == "PrometheusRule"
        rules = PLAIN.parent / "monitoring/rules" / f"{name}.yml"
        assert one["spec"] == yaml.safe_load(rules.read_text())


# The chart


VALUES = {one: one.partition("-")[0] + one.title().partition("-")[2] for one in COMPONENTS}


@pytest.mark.parametrize(
    "components",
    [
        ("monitoring", "autoscaling"),
        *((one,) for one in COMPONENTS if one != "autoscaling"),
        ("monitoring", "tls", "object-storage"),
        ("gpu", "monitoring", "tls", "object-storage", "autoscaling"),
    ],
    ids="+".join,
)
def test_chart_renders_the_plain_manifests(render: Render, components: tuple[str, ...]) -> None:
    plain = render(*components)
    rendered = chart("--set", ",".join(f"{VALUES[one]}.enabled=true" for one in components))
    settings = the("ConfigMap", plain)["metadata"]["name"]
    assert sorted_lists(as_kustomize_has_it(rendered, settings)) == sorted_lists(by_kind(plain))


def sorted_lists(found: Mapping[str, Object]) -> dict[str, Object]:
    """Sorts the lists of a pod that have no order: volumes, mounts, and variables.

    A variable that names others comes after them, in both.
    """
    sorted_: dict[str, Object] = json.loads(json.dumps(found))
    pod = sorted_["Deployment"]["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    for holder, name, key in (
        (pod, "volumes", "name"),
        (server, "volumeMounts", "mountPath"),
        (server, "env", "name"),
    ):
        holder[name].sort(key=lambda one, key=key: one[key])
    return sorted_


def test_url_of_the_models_is_a_value() -> None:
    flags = "objectStorage.enabled=true,objectStorage.url=s3://mine/models"
    server = container(the("Deployment", chart("--set", flags)))
    assert {"name": "CONVSERVE_MODELS", "value": "s3://mine/models"} in server["env"]


def by_kind(found: Sequence[Object]) -> dict[str, Object]:
    return {one["kind"]: one for one in found}


def as_kustomize_has_it(found: Sequence[Object], settings: str) -> dict[str, Object]:
    """Takes out of what Helm renders what only Helm has."""
    text = json.dumps(found)
    text = text.replace('"app.kubernetes.io/managed-by": "Helm", ', "")
    text = text.replace(', "app.kubernetes.io/managed-by": "Helm"', "")
    objects = by_kind(json.loads(text))
    pod = objects["Deployment"]["spec"]["template"]
    digest = pod["metadata"].pop("annotations")
    assert re.fullmatch("[0-9a-f]{64}", digest["checksum/settings"])
    server = container(objects["Deployment"])
    assert server.pop("imagePullPolicy") == "IfNotPresent"
    server["image"] = server["image"].removesuffix(":0.1.0")
    for volume in pod["spec"]["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["name"] = settings
    objects["ConfigMap"]["metadata"]["name"] = settings
    if "PersistentVolumeClaim" in objects:
        kept = objects["PersistentVolumeClaim"]["metadata"].pop("annotations")
        assert kept == {"helm.sh/resource-policy": "keep"}
    return objects


@pytest.mark.parametrize("version", VERSIONS)
def test_chart_is_valid(tmp_path: Path, version: str) -> None:
    run(TOOLS / "helm", "lint", "--strict", CHART)
    validate(tmp_path, chart("--kube-version", version), version)


def test_values_change_what_they_say(tmp_path: Path) -> None:
    values = {
        "image": {
            "repository": "registry.example.org/server",
            "tag": "7",
            "pullSecrets": [{"name": "s"}],
        },
        "replicas": 5,
        "resources": dict.fromkeys(("requests", "limits"), {"cpu": "4", "memory": "2Gi"}),
        "terminationGracePeriodSeconds": 90,
        "settings": "[limits]\nmax_images = 8\n",
        "env": [{"name": "CONVSERVE_LOG_LEVEL", "value": "debug"}],
        "models": {"existingClaim": "mine"},
        "serviceAccount": {"annotations": {"a": "b"}},
        "networkPolicy": {"enabled": False},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "t", "operator": "Exists"}],
        "autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 4, "serverAddress": "http://p"},
    }  # fmt: skip
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    found = chart("--values", str(file), "--namespace", "elsewhere")
    kinds = {one["kind"] for one in found}
    assert not kinds & {"NetworkPolicy", "PersistentVolumeClaim", "ServiceMonitor"}
    assert {one["metadata"]["namespace"] for one in found} == {"elsewhere"}
    deployment = the("Deployment", found)
    assert "replicas" not in deployment["spec"]
    pod, server = deployment["spec"]["template"]["spec"], container(deployment)
    assert server["image"] == "registry.example.org/server:7"
    assert server["resources"] == values["resources"]
    assert server["env"][-1:] == values["env"]
    assert pod["terminationGracePeriodSeconds"] == 90
    assert pod["imagePullSecrets"] == [{"name": "s"}]
    assert (pod["nodeSelector"], pod["tolerations"]) == (
        values["nodeSelector"],
        values["tolerations"],
    )
    claims = [one["persistentVolumeClaim"] for one in pod["volumes"] if "configMap" not in one]
    assert [claim["claimName"] for claim in claims] == ["mine"]
    assert the("ConfigMap", found)["data"]["convserve.toml"] == values["settings"]
    assert the("ServiceAccount", found)["metadata"]["annotations"] == {"a": "b"}
    scaled = the("ScaledObject", found)["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (3, 4)
    for trigger in scaled["triggers"]:
        assert trigger["metadata"]["serverAddress"] == "http://p"
        assert 'namespace="elsewhere"' in trigger["metadata"]["query"]
        assert 'namespace="convserve"' not in trigger["metadata"]["query"]
    assert "replicas" in the("Deployment", chart())["spec"]


def test_package_of_the_chart_has_all_that_it_renders(tmp_path: Path) -> None:
    run(TOOLS / "helm", "package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("convserve-*.tgz")
    flags = ["--set", ",".join(f"{one}.enabled=true" for one in VALUES.values())]
    rendered = run(TOOLS / "helm", "template", "convserve", package, "-n", "convserve", *flags)
    assert by_kind(objects(rendered)) == by_kind(chart(*flags))


def test_version_of_the_chart_is_that_of_the_programs() -> None:
    found = yaml.safe_load((CHART / "Chart.yaml").read_text())
    pyproject = (PLAIN.parents[1] / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.+)"$', pyproject, re.MULTILINE)
    assert found["version"] == found["appVersion"] == version
