"""tritonclient, unmodified: what it gets is what our own client gets."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from convserve import Client
from tests.bundles import CLASSES, COLOURS, digit_of
from tests.open_inference.conftest import Served, output_of, session_of

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(120)]

NEWEST, OLDEST = "tritonclient-2.73", "tritonclient-2.41"
SUM = [list(range(1, 17))]
DIFFERENCE = [list(range(-1, 15))]
ALL = {"OUTPUT0": SUM, "OUTPUT1": DIFFERENCE}

Answers = dict[str, Any]


@pytest.fixture(scope="module", params=[
    (environment, front) for environment in (NEWEST, OLDEST)
    for front in ("grpc", "grpc-aio", "http", "http-aio")
], ids="-".join)  # fmt: skip
def session(request: pytest.FixtureRequest, served: Served) -> tuple[str, Answers]:
    environment, front = request.param
    return front, session_of(environment, front, served)


@pytest.fixture
def answers(session: tuple[str, Answers]) -> Answers:
    return session[1]


@pytest.fixture(scope="module")
def ours(served: Served) -> Iterator[Client]:
    with Client(served.grpc) as client:
        yield client


def test_health(answers: Answers) -> None:
    names = ("live", "ready", "model ready", "version ready", "unknown model ready")
    assert [answers[name] for name in names] == [True] * 4 + [False]


def test_metadata_and_configuration(answers: Answers) -> None:
    assert answers["server"]["name"] == "convserve"
    metadata = answers["metadata"]
    assert (metadata["name"], metadata["versions"]) == ("simple", ["1"])
    shapes = {
        each["name"]: (each["datatype"], [int(size) for size in each["shape"]])
        for each in metadata["inputs"] + metadata["outputs"]
    }
    names = ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")
    assert shapes == dict.fromkeys(names, ("INT32", [-1, 16]))
    configuration = answers["configuration"]
    configuration = configuration.get("config", configuration)  # Only gRPC has a message around it.
    assert configuration["name"] == "simple"
    assert configuration["max_batch_size"] > 1
    assert [each["data_type"] for each in configuration["input"]] == ["TYPE_INT32"] * 2


def test_repository_index(answers: Answers) -> None:
    index = answers["index"]
    states = {
        each["name"]: each["state"]
        for each in (index if isinstance(index, list) else index["models"])
    }
    assert states.items() >= {"simple": "READY", "mnist": "READY", "colours": "READY"}.items()
    assert states.get("spare") != "READY"


def test_inference(answers: Answers) -> None:
    assert answers["sum"] == ALL
    assert answers["one output"] == {"OUTPUT1": DIFFERENCE}
    assert answers["id and version"] == ["an id", "simple", "1"]


def test_typed_contents(session: tuple[str, Answers]) -> None:
    front, answers = session
    if front == "grpc":
        assert answers["typed"] == ["typed", SUM[0], DIFFERENCE[0]]
    elif front == "http":
        assert answers["typed"] == ALL


def test_other_ways_to_call(session: tuple[str, Answers]) -> None:
    front, answers = session
    if front == "http":
        for name in ("compressed", "mixed, gzip", "mixed, deflate"):
            assert answers[name] == ALL
        assert answers["query"] is True  # One that our server does not know.
    if not front.endswith("aio"):
        assert answers["called back"] == ALL
    if front.startswith("grpc"):
        assert answers["stream"] == [["to simple", ALL], "error", ["to simple", ALL]]


def test_pixels_as_our_client_has_them(answers: Answers, ours: Client) -> None:
    right = ours.classify(digit_of(3), model="mnist").probabilities
    for name in ("unsigned pixels", "floating-point pixels"):
        (got,) = answers[name]["probabilities"]
        assert np.array_equal(np.array(got, np.float32), right.reshape(CLASSES))


def test_pictures_as_our_client_has_them(answers: Answers, ours: Client, served: Served) -> None:
    right = ours.classify_images(served.jpeg, model="colours").probabilities
    got = np.array(answers["pictures"]["probabilities"], np.float32)
    assert got.shape == (2, len(COLOURS))
    assert np.array_equal(got, np.repeat(right.reshape(1, -1), 2, axis=0))
    assert COLOURS[got[0].argmax()] == "red"


def test_classes(answers: Answers) -> None:
    first, second = answers["classes"]["probabilities"]
    assert first == "1.000000:3:3"
    assert second.startswith("0.000000:")


def test_errors_name_what_is_wrong(session: tuple[str, Answers]) -> None:
    front, answers = session
    over_grpc = front.startswith("grpc")
    for name, code, status, words in [
        ("a bad picture", "INVALID_ARGUMENT", "400", "[1]"),
        ("wrong shape", "INVALID_ARGUMENT", "400", "[-1, 16]"),
        ("unknown model", "NOT_FOUND", "404", "no-such-model"),
    ]:
        error = answers[name]
        assert error["error"] == "InferenceServerException", error
        expected = f"StatusCode.{code}" if over_grpc else status
        assert error["status"] in (expected, None), error  # Not every version keeps it.
        assert words in error["text"]


def test_load_and_unload(answers: Answers) -> None:
    names = ("load", "loaded is ready", "unload", "unloaded is ready")
    assert [answers[name] for name in names] == [None, True, None, False]


def test_statistics(answers: Answers) -> None:
    (statistics,) = answers["statistics"]["model_stats"]
    assert (statistics["name"], statistics["version"]) == ("simple", "1")
    success = statistics["inference_stats"]["success"]
    assert int(success["count"]) >= 2
    assert int(success["ns"]) > 0
    assert int(statistics["inference_count"]) >= int(statistics["execution_count"]) > 0


def test_both_clients_in_one_process(served: Served) -> None:
    script = (
        "import sys, numpy as np\n"
        "import tritonclient.grpc as triton, convserve\n"
        "pixels = np.zeros((1, 28, 28, 1), np.uint8); pixels[0, 0, 3, 0] = 255\n"
        "tensor = triton.InferInput('pixels', [1, 28, 28, 1], 'UINT8')\n"
        "tensor.set_data_from_numpy(pixels)\n"
        "theirs = triton.InferenceServerClient(sys.argv[1]).infer('mnist', [tensor])\n"
        "with convserve.Client(sys.argv[1]) as client:\n"
        "    ours = client.classify(pixels, model='mnist')\n"
        "assert (theirs.as_numpy('probabilities') == ours.probabilities).all()\n"
        "print(theirs.as_numpy('probabilities').argmax())\n"
    )
    assert output_of(NEWEST, "-c", script, served.grpc) == "3\n"
