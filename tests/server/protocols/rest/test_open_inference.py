"""What there is to ask of Open Inference by REST, beside inference."""

from convserve_protos import open_inference_pb2 as pb
from convserve_server.protocols.open_inference.service import EXTENSIONS
from convserve_server.protocols.rest.open_inference import plain
from tests.bundles import write_bundle
from tests.server.conftest import Serve
from tests.server.http_client import HttpClient


def test_server_models_and_their_versions(serve: Serve) -> None:
    served = serve(http=True, versions="all", by_model={"mnist": {"labels": {"stable": 1}}})
    write_bundle(served.models, version=2)
    with HttpClient(served.http_port) as client:
        found = client.ask("GET", "/v2").json
        assert (found["name"], found["extensions"]) == ("convserve", list(EXTENSIONS))
        while client.ask("GET", "/v2/models/mnist/versions/2/ready").status != 200:
            pass
        found = client.ask("GET", "/v2/models/mnist").json
        assert found["versions"] == ["2", "1"]
        assert found["inputs"] == [
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, 28, 28, 1]}
        ]
        for version in ("1", "stable"):
            base = f"/v2/models/mnist/versions/{version}"
            assert client.ask("GET", f"{base}/ready").json == {"name": "mnist", "ready": True}
            assert client.ask("GET", base).json == found
            (one,) = client.ask("GET", f"{base}/stats").json["model_stats"]
            assert (one["name"], one["version"]) == ("mnist", "1")
        config = client.ask("GET", "/v2/models/mnist/config").json
        assert config["input"] == [
            {"name": "pixels", "data_type": "TYPE_UINT8", "dims": [28, 28, 1]}
        ]
        assert config["model_transaction_policy"] == {"decoupled": False}
        for path in ("/v2/models/stats", "/v2/models/mnist/stats"):
            versions = [one["version"] for one in client.ask("GET", path).json["model_stats"]]
            assert versions == ["2", "1"]
        for body in (b"", b"{}", b'{"ready": true}'):
            states = client.ask("POST", "/v2/repository/index", body).json
            assert [(one["version"], one["state"]) for one in states] == [
                ("2", "READY"), ("1", "READY"),
            ]  # fmt: skip


def test_query_that_is_not_known_is_ignored(serve: Serve) -> None:
    """The examples of tritonclient send one."""
    with HttpClient(serve(http=True).http_port) as client:
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/mnist"):
            assert client.ask("GET", f"{path}?test_1=1&test_2=2").status == 200


def test_what_is_wrong_or_not_there(serve: Serve) -> None:
    with HttpClient(serve(http=True).http_port) as client:
        for verb, path, body, status, field in (
            ("GET", "/v2/models/none", None, 404, "model"),
            ("GET", "/v2/models/none/config", None, 404, "model"),
            ("GET", "/v2/models/mnist/versions/9", None, 404, "version"),
            ("GET", "/v2/models/mnist/versions/0", None, 400, "version"),
            ("GET", "/v2/models/none/stats", None, 404, "model"),
            ("GET", "/v2/models", None, 404, "path"),
            ("GET", "/v2/models/mnist/infer", None, 405, "method"),
            ("POST", "/v2/repository/index", b'{"ready": 1}', 400, "ready"),
            ("POST", "/v2/repository/models/mnist/load", b"[]", 400, "body"),
        ):
            reply = client.ask(verb, path, body)
            assert (reply.status, reply.json.get("field")) == (status, field), (path, reply)
        reply = client.ask("GET", "/v2/models/none/ready")
        assert (reply.status, reply.json) == (503, {"name": "none", "ready": False})
        for what in ("load", "unload"):
            reply = client.ask("POST", f"/v2/repository/models/mnist/{what}", b'{"parameters": {}}')
            assert (reply.status, reply.json["reason"]) == (403, "PERMISSION_DENIED")


def test_message_as_json_has_numbers_and_names() -> None:
    message = pb.ModelConfig(name="m", max_batch_size=3)
    message.input.add(name="x", data_type=pb.TYPE_FP16, dims=[2**40])
    message.model_transaction_policy.SetInParent()
    assert plain(message) == {
        "name": "m",
        "platform": "",
        "backend": "",
        "max_batch_size": 3,
        "input": [{"name": "x", "data_type": "TYPE_FP16", "dims": [2**40]}],
        "output": [],
        "model_transaction_policy": {"decoupled": False},
    }
    metadata = pb.ModelMetadataResponse(properties={"a": "b"})
    assert plain(metadata)["properties"] == {"a": "b"}
