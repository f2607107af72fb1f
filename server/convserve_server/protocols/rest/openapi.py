"""The description of the paths for programs, OpenAPI 3.1, served at /openapi.json.

Source: https://spec.openapis.org/oas/v3.1.0
"""

from importlib.metadata import version
from typing import Any

Schema = dict[str, Any]

_MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
_VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "Digits a version, else a label that the operator has given to one.",
    "schema": {"type": "string"},
}
_TIMEOUT = {
    "name": "x-timeout-ms",
    "in": "header",
    "description": "How long the client waits, ms; later nothing is computed for it.",
    "schema": {"type": "integer", "minimum": 1},
}
_PRIORITY = {
    "name": "convserve-priority",
    "in": "header",
    "schema": {"type": "string", "enum": ["interactive", "batch"]},
}
_ID = {
    "name": "x-request-id",
    "in": "header",
    "description": "Repeated in the answer.",
    "schema": {"type": "string", "maxLength": 128},
}
_WORK = (_TIMEOUT, _PRIORITY, _ID)


def document() -> Schema:
    """Returns the description."""
    classify = _operation(
        "Classifies pictures",
        "ClassifyAnswer",
        (
            *_WORK,
            _query("top_k", {"type": "integer", "minimum": 1},
                   "Only so many of the most probable classes."),
            _query("pixels", {"type": "boolean"},
                   "Whether each result has the pixels that the model has seen."),
        ),
        body={
            "description": "A file in one of the file_formats of the model, of whatever content "
            "type, or a form with several.",
            "required": True,
            "content": {
                "application/octet-stream": {},
                "image/jpeg": {},
                "image/png": {},
                "image/webp": {},
                "image/gif": {},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "additionalProperties": {
                            "type": "array", "items": {"type": "string", "format": "binary"},
                        },
                    }
                },
            },
        },
        tag="pictures",
    )  # fmt: skip
    infer = _operation(
        "Runs a model on tensors", "InferAnswer", _WORK, body=_json_body("InferRequest")
    )
    metadata = _operation("Describes a model", "ModelMetadata")
    ready = _operation("Says whether a model is ready", "Ready")
    config = _operation("A model's configuration", "Object")
    statistics = _operation("What a model has done", "Object")
    change = _json_body("Object", required=False)
    one, of_version = (_MODEL,), (_MODEL, _VERSION)
    model, with_version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Convserve",
            "version": version("convserve"),
            "description": "Pictures and tensors to models. Everything that is wrong is answered "
            "with the schema Error.",
        },
        "paths": {
            "/openapi.json": {"get": _operation("This document", "Object", tag="server")},
            "/v1/models": {"get": _operation("Lists the models", "Models", tag="pictures")},
            "/v1/models/{model}:classify": {"post": classify, "parameters": one},
            "/v1/models/{model}/versions/{version}:classify": {
                "post": classify, "parameters": of_version,
            },
            "/v2": {"get": _operation("Describes the server", "ServerMetadata")},
            "/v2/health/live": {"get": _operation("Says that the server answers", "Live")},
            "/v2/health/ready": {"get": _operation("Says whether a model is served", "Ready")},
            "/v2/models/stats": {"get": _operation("What all models have done", "Object")},
            model: {"get": metadata, "parameters": one},
            with_version: {"get": metadata, "parameters": of_version},
            f"{model}/ready": {"get": ready, "parameters": one},
            f"{with_version}/ready": {"get": ready, "parameters": of_version},
            f"{model}/config": {"get": config, "parameters": one},
            f"{with_version}/config": {"get": config, "parameters": of_version},
            f"{model}/stats": {"get": statistics, "parameters": one},
            f"{with_version}/stats": {"get": statistics, "parameters": of_version},
            f"{model}/infer": {"post": infer, "parameters": one},
            f"{with_version}/infer": {"post": infer, "parameters": of_version},
            "/v2/repository/index": {
                "post": _operation("Lists the versions in the models folder", "Index", body=change)
            },
            "/v2/repository/models/{model}/load": {
                "post": _operation("Loads a model", "Object", body=change), "parameters": one,
            },
            "/v2/repository/models/{model}/unload": {
                "post": _operation("Unloads a model", "Object", body=change), "parameters": one,
            },
        },
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        # A server without keys needs none, and one with keys may allow some things without.
        "security": [{}, {"key": []}],
    }  # fmt: skip


def _operation(
    summary: str,
    schema: str,
    parameters: tuple[Schema, ...] = (_TIMEOUT,),
    body: Schema | None = None,
    tag: str = "open-inference",
) -> Schema:
    """Returns an operation.

    Args:
        summary: what it does.
        schema: of its answer.
        parameters: beside those of the path.
        body: of its request.
        tag: its group.
    """
    operation: Schema = {
        "summary": summary,
        "tags": [tag],
        "parameters": list(parameters),
        "responses": {
            "200": {"description": "The answer", "content": _content(schema)},
            "default": {"description": "What is wrong", "content": _content("Error")},
        },
    }
    if body is not None:
        operation["requestBody"] = body
    return operation


def _query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _json_body(schema: str, *, required: bool = True) -> Schema:
    return {"required": required, "content": _content(schema)}


def _content(schema: str) -> Schema:
    return {"application/json": {"schema": _reference(schema)}}


def _reference(schema: str) -> Schema:
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(required: str, **properties: Schema) -> Schema:
    """Returns the schema of an object.

    Args:
        required: names of those that are always there, with spaces between them.
        properties: the schemas of all.
    """
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_TRUTH: Schema = {"type": "boolean"}
_PARAMETERS: Schema = {"type": "object", "additionalProperties": True}
_SHAPE = _list(_WHOLE)
_CLASS = _object("label probability", label=_TEXT, probability=_NUMBER)
_TENSOR = {"name": _TEXT, "datatype": _TEXT, "shape": _SHAPE}

_BY_LABEL: Schema = {"type": "object", "additionalProperties": _NUMBER}

_SCHEMAS: Schema = {
    "Object": {"type": "object"},
    "Error": _object(
        "error reason",
        error={"type": "string", "description": "For people."},
        reason={"type": "string", "description": "For programs: UPPER_SNAKE_CASE."},
        field={"type": "string", "description": "What of the request is wrong."},
        expected=_TEXT,
        got=_TEXT,
        retry_after_s={"type": "number", "description": "When the same may succeed."},
    ),
    "Class": _CLASS,
    "Pixels": _object(
        "height width channels data",
        height=_WHOLE,
        width=_WHOLE,
        channels=_WHOLE,
        data={"type": "string", "contentEncoding": "base64"},
    ),
    "ClassifyAnswer": _object(
        "model version results timings",
        model=_TEXT,
        version=_WHOLE,
        results=_list(
            {
                "description": "One for each file: a class, or why there is none.",
                "type": "object",
                "properties": {
                    "label": _TEXT,
                    "probability": _NUMBER,
                    "classes": _list(_reference("Class")),
                    "assigned": {
                        **_list(_reference("Class")),
                        "description": "The labels of an image that may have several.",
                    },
                    "pixels": _reference("Pixels"),
                    "error": _reference("Error"),
                },
            }
        ),
        thresholds=_BY_LABEL,
        timings=_object(
            "queue_us compute_us decode_us", queue_us=_WHOLE, compute_us=_WHOLE, decode_us=_WHOLE
        ),
    ),
    "Models": _object(
        "models refused",
        models=_list(
            _object(
                "name version default version_labels labels execution_provider",
                name=_TEXT,
                version=_WHOLE,
                default={"type": "boolean", "description": "Answers if no version is asked for."},
                version_labels=_list(_TEXT),
                labels={**_list(_TEXT), "description": "Of its classes."},
                execution_provider=_TEXT,
                output={"type": "string", "enum": ["softmax", "multi_label"]},
                thresholds=_BY_LABEL,
                input=_object(
                    "height width channels kind resize file_formats",
                    height=_WHOLE,
                    width=_WHOLE,
                    channels=_WHOLE,
                    kind={"type": "string", "enum": ["digits", "photo", "pixels", "unspecified"]},
                    resize=_TEXT,
                    file_formats=_list(
                        {"type": "string", "enum": ["JPEG", "PNG", "WebP", "GIF"]}
                    ),
                ),
                parameters=_WHOLE,
                precision=_TEXT,
                metrics={"type": "object", "additionalProperties": _NUMBER},
                created={"type": "string", "format": "date-time"},
            )
        ),
        refused=_list(
            _object("name version reason", name=_TEXT, version=_WHOLE, reason=_TEXT)
        ),
    ),
    "Live": _object("live", live=_TRUTH),
    "Ready": _object("ready", name=_TEXT, ready=_TRUTH),
    "ServerMetadata": _object(
        "name version extensions", name=_TEXT, version=_TEXT, extensions=_list(_TEXT)
    ),
    "ModelMetadata": _object(
        "name versions platform inputs outputs",
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_object("name datatype shape", **_TENSOR)),
        outputs=_list(_object("name datatype shape", **_TENSOR)),
        properties={"type": "object", "additionalProperties": _TEXT},
    ),
    "Index": _list(
        _object("name version state reason", name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)
    ),
    "InferRequest": _object(
        "inputs",
        id=_TEXT,
        parameters=_PARAMETERS,
        inputs=_list(
            _object(
                "name datatype shape", **_TENSOR, parameters=_PARAMETERS,
                data={"type": "array", "description": "Nested as the shape, or flat."},
            )
        ),
        outputs=_list(_object("name", name=_TEXT, parameters=_PARAMETERS)),
    ),
    "InferAnswer": _object(
        "model_name model_version outputs",
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        outputs=_list(
            _object("name datatype shape", **_TENSOR, parameters=_PARAMETERS, data=_list({}))
        ),
    ),
}  # fmt: skip
