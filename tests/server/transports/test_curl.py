"""What curl sees of each front, as docs/errors.md has it."""

import shutil
import subprocess

import pytest

from tests.server.conftest import WAIT_S, Serve

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

_CALL = (
    "--http2-prior-knowledge",
    *("-H", "te: trailers", "-H", "content-type: application/grpc", "--data-binary", "@-"),
)


def curl(url: str, *options: str) -> "subprocess.CompletedProcess[bytes]":
    """Ask; an empty gRPC message is there for those who send standard input."""
    return subprocess.run(
        ["curl", "-sS", "-i", "--max-time", str(WAIT_S), *options, url, "--output", "-"],
        input=bytes(5),
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("options", [(), ("--http2",)], ids=["HTTP/1.1", "upgrade"])
def test_http_1_is_not_spoken(serve: Serve, front: str, options: tuple[str, ...]) -> None:
    asked = curl(f"http://{serve(front).address}/", *options)
    assert asked.returncode == 1
    assert b"Received HTTP/0.9 when not allowed" in asked.stderr


def test_path_that_is_no_call_is_refused_in_the_words_of_each_front(
    serve: Serve, front: str
) -> None:
    asked = curl(f"http://{serve(front).address}/", "--http2-prior-knowledge")
    if front == "grpcio":
        assert asked.returncode == 92
        assert b"INTERNAL_ERROR" in asked.stderr
    else:
        assert b"grpc-status: 14" in asked.stdout
        assert b"out-of-tree" in asked.stdout


def test_method_without_a_message_is_refused_in_the_words_of_each_front(
    serve: Serve, front: str
) -> None:
    url = f"http://{serve(front).address}/convserve.v1.Classifier/ListModels"
    asked = curl(url, "--http2-prior-knowledge")
    if front == "grpcio":
        assert asked.returncode == 92
        assert b"INTERNAL_ERROR" in asked.stderr
    else:
        assert b"grpc-status: 13" in asked.stdout
        assert b"Missing%20request%20message." in asked.stdout


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/grpc.health.v1.Health/List", b"mnist"),
        ("/convserve.v1.Classifier/ListModels", b"mnist"),
        ("/no.Such/Method", b"grpc-status: 12"),
    ],
)
def test_whole_call_is_answered(serve: Serve, front: str, path: str, says: bytes) -> None:
    asked = curl(f"http://{serve(front).address}{path}", *_CALL)
    assert asked.stderr == b""
    assert asked.stdout.startswith(b"HTTP/2 200")
    assert says in asked.stdout
