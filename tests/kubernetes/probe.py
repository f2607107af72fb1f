"""Asks a server what a kubelet would: python -m tests.kubernetes.probe ADDRESS PROBE PORTS.

PROBE is a probe of a manifest, PORTS are those of its container by their names, both as JSON.
Prints "ok", or why it has failed, and ends with 1. A kubelet opens a connection for each probe,
sends no key, and looks at no certificate.

Source: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

import json
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def failure_of(address: str, probe: Mapping[str, Any], ports: Mapping[str, int]) -> str:
    """Returns why a probe fails; nothing if it does not.

    Args:
        address: of the pod.
        probe: of its container.
        ports: of the container, by their names.
    """
    within_s = float(probe.get("timeoutSeconds", 1))
    if "grpc" in probe:
        asked = probe["grpc"]
        request = health_pb2.HealthCheckRequest(service=asked.get("service", ""))
        try:
            with grpc.insecure_channel(f"{address}:{asked['port']}") as channel:
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=within_s)
        except grpc.RpcError as error:
            return str(error.code())
        name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return "" if name == "SERVING" else name
    asked = probe["httpGet"]
    port = ports.get(asked["port"], asked["port"])
    url = f"{asked.get('scheme', 'HTTP').lower()}://{address}:{port}{asked['path']}"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=within_s, context=context):
            return ""
    except (urllib.error.URLError, OSError) as error:
        return str(error)


if __name__ == "__main__":
    failure = failure_of(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]))
    print(failure or "ok")
    sys.exit(bool(failure))
