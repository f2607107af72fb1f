"""The description of the paths is true, and complete."""

import json
import re
from typing import Any

import pytest

from convserve_server.protocols.rest.app import ROUTES
from tests.server.conftest import Serve
from tests.server.http_client import PNG, HttpClient, multipart


@pytest.fixture
def client(serve: Serve) -> Any:
    with HttpClient(serve(http=True).http_port) as client:
        yield client


def test_paths_are_those_that_are_served(client: HttpClient) -> None:
    document = client.ask("GET", "/openapi.json").json
    assert document["openapi"] == "3.1.0"
    described = {
        (verb.upper(), path)
        for path, item in document["paths"].items()
        for verb in item
        if verb != "parameters"
    }
    assert described == {(route.verb, route.path) for route in ROUTES}
    for path, item in document["paths"].items():
        named = {each["name"] for each in item.get("parameters", ())}
        assert named == set(re.findall(r"{(\w+)}", path))
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/(\w+)", text)) == schemas.keys()


def test_answers_have_the_schemas_that_are_stated(client: HttpClient) -> None:
    document = client.ask("GET", "/openapi.json").json
    body, headers = multipart(PNG, b"a text")
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 28, 28, 1], "data": [0] * 784}
    infer = json.dumps({"inputs": [tensor], "id": "a"}).encode()
    for verb, path, reply in (
        ("get", "/v1/models", client.ask("GET", "/v1/models")),
        ("post", "/v1/models/{model}:classify",
         client.ask("POST", "/v1/models/mnist:classify?pixels=1", body, headers)),
        ("get", "/v2", client.ask("GET", "/v2")),
        ("get", "/v2/health/live", client.ask("GET", "/v2/health/live")),
        ("get", "/v2/health/ready", client.ask("GET", "/v2/health/ready")),
        ("get", "/v2/models/{model}", client.ask("GET", "/v2/models/mnist")),
        ("get", "/v2/models/{model}/ready", client.ask("GET", "/v2/models/mnist/ready")),
        ("post", "/v2/models/{model}/infer", client.ask("POST", "/v2/models/mnist/infer", infer)),
        ("post", "/v2/repository/index", client.ask("POST", "/v2/repository/index")),
        ("get", "default", client.ask("GET", "/v2/models/none")),
    ):  # fmt: skip
        if path == "default":
            schema = {"$ref": "#/components/schemas/Error"}
        else:
            response = document["paths"][path][verb]["responses"]["200"]
            schema = response["content"]["application/json"]["schema"]
        check(reply.json, schema, document, path)


def check(value: Any, schema: dict[str, Any], document: Any, where: str) -> None:
    """Check a value against what of JSON Schema the document uses; nothing may be left out."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict, "array": list, "string": str, "integer": int, "number": (int, float),
        "boolean": bool,
    }  # fmt: skip
    assert isinstance(value, kinds[schema["type"]] if "type" in schema else object), where
    assert "enum" not in schema or value in schema["enum"], where
    if isinstance(value, list) and schema.get("items"):
        for index, each in enumerate(value):
            check(each, schema["items"], document, f"{where}[{index}]")
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= value.keys(), where
        others = schema.get("additionalProperties")
        known = schema.get("properties", {})
        for name, each in value.items():
            assert name in known or others, f"{where}.{name}"
            if name in known or isinstance(others, dict):
                check(each, known.get(name, others), document, f"{where}.{name}")
