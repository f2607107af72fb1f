"""deploy/envoy as far as no Envoy is needed; tests/envoy runs one."""

import re
import runpy
from pathlib import Path

import pytest

from benchmarks.harness.envoy import ARGUMENTS, CONFIG, KUBERNETES, PROTOSET, write_config
from convserve_server.settings.settings import make_settings

#: Base64, in JSON and gRPC-Web, makes four bytes of three.
BASE64 = 4 / 3
#: What the rest of a message may have, bytes.
REST = 2**16


def test_protoset_is_what_the_proto_files_give() -> None:
    script = runpy.run_path(str(PROTOSET.with_name("protoset.py")))
    assert PROTOSET.read_bytes() == script["protoset"](), "it is not current; run: make protos"


def test_servers_refuse_a_large_request_before_envoy_does() -> None:
    found = re.findall(r"max_request(?:_body)?_(?:bytes|size): (\d+)", CONFIG.read_text())
    assert len(found) == 2
    limit = make_settings(models="m").limits.max_message_bytes or 16 * 2**20
    for most in map(int, found):
        assert most > limit * BASE64 + REST


def test_pods_have_what_is_tested() -> None:
    pods = KUBERNETES.read_text()
    given = [line.strip(' -"') for line in pods.splitlines()]
    first = given.index(ARGUMENTS[0].strip("-"))
    assert given[first : first + len(ARGUMENTS)] == [each.strip("-") for each in ARGUMENTS]
    heap = re.search(r"max_heap_size_bytes: (\d+)", CONFIG.read_text())
    limit = re.search(r"limits: .*memory: (\d+)Mi", pods)
    assert heap
    assert limit
    assert int(heap[1]) * 5 / 4 == int(limit[1]) * 2**20


def test_text_to_replace_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"envoy.yaml: expected the text 'port: 1', got none"):
        write_config(tmp_path, {"port: 1": "port: 2"})
