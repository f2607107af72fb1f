"""The server, started with what the pods of the manifests have, and asked as a kubelet asks."""

import hashlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import write_bundle
from tests.certificates import Authority
from tests.kubernetes.conftest import Render
from tests.kubernetes.manifests import PLAIN, container, objects, the
from tests.kubernetes.pod import Pod, lacking, started

pytestmark = pytest.mark.kubernetes

FIELDS = {"metadata.namespace": "convserve"}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")

#: A call from a pod beside it, by our client; prints the label.
CALL = """
import sys
from convserve import Client
from tests.bundles import digit_of
options = {"tls_ca": sys.argv[2], "key_file": sys.argv[3]} if sys.argv[2:] else {}
with Client(sys.argv[1], **options) as client:
    print(client.classify(digit_of(7)[None], model="mnist")[0].label)
"""

#: A request by HTTP for a name; prints the status.
GET = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Host": sys.argv[2]})
print(urllib.request.urlopen(request, timeout=60).status)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the volumes are: each path of a container is a folder in it.

    Not below pytest's own folder, which each run of pytest closes for other users.
    """
    if why := lacking():
        pytest.skip(f"cannot start a container's process: {why}")
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def mounted(deployment: Any, folder: Path) -> dict[str, Path]:
    """Makes a folder for each mount."""
    found = {
        one["mountPath"]: folder / one["mountPath"].strip("/").replace("/", "-")
        for one in container(deployment)["volumeMounts"]
    }
    for one in found.values():
        one.mkdir()
    return found


def user_of(deployment: Any) -> tuple[int, int]:
    context = deployment["spec"]["template"]["spec"]["securityContext"]
    return context["runAsUser"], context["runAsGroup"]


def call(pod: Pod, *arguments: str) -> str:
    done = pod.inside("-c", CALL, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_pod_is_live_then_ready_serves_leaves_and_ends_within_its_grace_period(
    render: Render, folder: Path
) -> None:
    found = render()
    deployment = the("Deployment", found)
    mounts = mounted(deployment, folder)
    for name, text in the("ConfigMap", found)["data"].items():
        (mounts["/etc/convserve"] / name).write_text(text)
    with started(container(deployment), user_of(deployment), mounts, FIELDS) as pod:
        pod.wait_for("listening on 0.0.0.0:50051")
        status = Path(f"/proc/{pod.process.pid}/status").read_text()
        assert "\nUid:\t10001\t10001\t" in status
        assert "\nCapEff:\t0000000000000000\n" in status
        # Without a model it is there, and not ready.
        assert [pod.probe(name) for name in PROBES] == ["ok", "ok", "NOT_SERVING"]
        write_bundle(mounts["/models"])
        pod.wait_for("mnist/1 is served by")
        while pod.probe("readinessProbe") != "ok":
            assert pod.process.poll() is None
        assert call(pod, "127.0.0.1:50051") == "7"
        for host in ("convserve", "convserve.convserve.svc.cluster.local:8080"):
            done = pod.inside("-c", GET, "http://127.0.0.1:8080/v1/models", host)
            assert done.stdout.strip() == "200", done.stderr
        done = pod.inside("-c", GET, "http://127.0.0.1:9464/metrics", "10.0.0.7:9464")
        assert done.stdout.strip() == "200", done.stderr
        asked = time.monotonic()
        pod.process.send_signal(signal.SIGTERM)
        pod.wait_for("serving on for 10 s, while health says NOT_SERVING")
        grace_s = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert pod.process.wait(grace_s) == 0
        assert time.monotonic() - asked > 10
    assert not [line for line in pod.log if line["level"] in ("error", "critical")]


@pytest.mark.parametrize("clients", [None, "optional"])
def test_pod_with_tls_and_keys_is_probed_without_either(
    render: Render, folder: Path, clients: str | None
) -> None:
    found = render("tls")
    deployment = the("Deployment", found)
    mounts = mounted(deployment, folder)
    for name, text in the("ConfigMap", found)["data"].items():
        (mounts["/etc/convserve"] / name).write_text(text)
    write_bundle(mounts["/models"])
    authority = Authority(folder)
    issued = authority.issue("127.0.0.1", "localhost")
    issued.cert.rename(mounts["/secrets/tls"] / "tls.crt")
    issued.key.rename(mounts["/secrets/tls"] / "tls.key")
    server = container(deployment)
    if clients:
        # As docs/kubernetes.md has it for mutual TLS.
        server["env"] += [
            {"name": "CONVSERVE_TLS_CLIENT_CA", "value": str(authority.ca)},
            {"name": "CONVSERVE_TLS_CLIENTS", "value": clients},
        ]
    key, keys = folder / "key", mounts["/secrets/keys"] / "keys.toml"
    key.write_text("a-key-of-32-letters-for-this-test")
    keys.write_text(KEYS.format(hashlib.sha256(key.read_bytes()).hexdigest()))
    # As Kubernetes has it, with defaultMode and fsGroup.
    user, group = user_of(deployment)
    for secret in (mounts["/secrets/tls"] / "tls.key", keys):
        os.chown(secret, 0, group)
        secret.chmod(0o440)
    with started(server, (user, group), mounts, FIELDS) as pod:
        pod.wait_for("listening on 0.0.0.0:50051")
        assert [pod.probe(name) for name in PROBES] == ["ok", "ok", "ok"]
        assert call(pod, "127.0.0.1:50051", str(authority.ca), str(key)) == "7"
        # Nothing else is open to who has no key.
        listed = {"httpGet": {"path": "/v1/models", "port": 8080, "scheme": "HTTPS"}}
        pod.container = {**server, "list": {**listed, "timeoutSeconds": 60}}
        assert "401" in pod.probe("list")
    assert not [line for line in pod.log if line["level"] in ("error", "critical")]
    assert not [line for line in pod.log if "can be read by every user" in line["message"]]


KEYS = """
[[key]]
name = "test"
sha256 = "{}"

[anonymous]
permissions = ["health"]
"""


def test_runtime_of_kserve_serves_what_is_in_its_folder(folder: Path) -> None:
    (runtime,) = objects((PLAIN / "kserve/serving-runtime.yaml").read_text())
    (server,) = runtime["spec"]["containers"]
    models = folder / "models"
    models.mkdir()
    write_bundle(models)
    with started(server, (10001, 10001), {"/mnt/models": models}, {}) as pod:
        pod.wait_for("listening on 0.0.0.0:9000")
        assert pod.probe("readinessProbe") == "ok"
        for path in ("/v2/models/mnist/ready", "/v2/models/mnist/versions/1"):
            url = f"http://127.0.0.1:8080{path}"
            done = pod.inside("-c", GET, url, "digits-predictor.example.org")
            assert done.stdout.strip() == "200", done.stderr
        assert call(pod, "127.0.0.1:9000") == "7"
    assert not [line for line in pod.log if line["level"] in ("error", "critical")]
