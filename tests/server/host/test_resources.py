"""What the supervisor chooses for a machine, and the port that it holds for its workers."""

import math
import re
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from convserve_server.engines.loader import EngineOptions
from convserve_server.host import resources
from convserve_server.host.engine_activity import create
from convserve_server.host.port import StartError, reserve_port
from convserve_server.host.resources import MIB, plan_resources
from convserve_server.process.worker import ModelLoader
from convserve_server.process.worker_spec import WorkerSpec
from convserve_server.settings.settings import Settings, make_settings


@pytest.mark.parametrize(
    ("cpus", "workers", "threads"),
    [
        (0.5, 1, 1),
        (1, 1, 1),
        (1.9, 1, 1),
        (2, 2, 1),
        (3.9, 3, 1),
        (16, 16, 1),
    ],
)
def test_sizes_left_to_us_fit_the_cpus(cpus: float, workers: int, threads: int) -> None:
    sized = plan_resources(make_settings(models="m"), cpus).settings
    assert (sized.process.workers, sized.engine.engine_threads) == (workers, threads)


@pytest.mark.parametrize("memory", [math.inf, 10 * 1024 * MIB])
def test_much_memory_changes_nothing(memory: float) -> None:
    plan = plan_resources(make_settings(models="m"), 2, memory)
    assert plan.settings == make_settings(
        models="m",
        workers=2,
        engine_threads=1,
        decode_threads=1,
        max_message_bytes=16 * MIB,
        max_queue_bytes=256 * MIB,
        max_stream_bytes=64 * MIB,
        max_decoder_bytes=256 * MIB,
        max_answer_bytes=64 * MIB,
        max_received_bytes=256 * MIB,
        max_connection_bytes=128 * MIB,
    )
    assert plan.many_threads == 2
    assert plan.batch_s == EngineOptions().batch_s
    assert plan.malloc_variables() == {"MALLOC_MMAP_THRESHOLD_": str(4 * MIB)}
    assert plan.memory_warning() == ""


@pytest.mark.parametrize(
    ("mib", "cpus", "workers", "many_threads", "decode_threads", "message", "queue", "decoder"),
    [
        (64, 1, 1, 1, 1, 8, 4, 16),
        (256, 0.5, 1, 1, 1, 8, 4, 16),
        (256, 1, 1, 1, 1, 8, 4, 16),
        (300, 2, 1, 2, 1, 11.5, 5.75, 16),
        (512, 1, 1, 1, 1, 16, 19, 38),
        (512, 2, 2, 1, 1, 9, 4.5, 16),
        (1024, 2, 2, 2, 1, 16, 16.5, 33),
        (1024, 64, 4, 16, 1, 10.5, 5.25, 16),
        (1024, 3, 3, 1, 1, 16, 10.333, 20.667),
    ],
)
def test_sizes_left_to_us_fit_the_memory(
    mib: int,
    cpus: float,
    workers: int,
    many_threads: int,
    decode_threads: int,
    message: float,
    queue: float,
    decoder: float,
) -> None:
    plan = plan_resources(make_settings(models="m"), cpus, mib * MIB)
    sized = plan.settings
    assert (sized.process.workers, sized.engine.decode_threads) == (workers, decode_threads)
    assert plan.many_threads == many_threads
    limits = sized.limits
    found = (limits.max_message_bytes, sized.batching.max_queue_bytes, limits.max_decoder_bytes)
    assert [size / MIB for size in found] == pytest.approx([message, queue, decoder], abs=0.01)
    # What streams hold is bounded by the same share, and by less where memory is plenty.
    assert limits.max_stream_bytes == min(64 * MIB, sized.batching.max_queue_bytes)
    assert limits.max_answer_bytes == 4 * limits.max_message_bytes


@pytest.mark.parametrize("mib", [300, 512, 1024])
def test_process_that_copies_models_has_memory_of_its_own(mib: int) -> None:
    folder, store = (
        plan_resources(make_settings(models=models), 2, memory * MIB)
        for models, memory in (("m", mib), ("s3://bucket/models", mib + 80))
    )
    assert store.settings.replace(models="m") == folder.settings
    assert store.low_memory == folder.low_memory
    few = plan_resources(make_settings(models="s3://bucket/models"), 1, 270 * MIB)
    assert "needs about 288 MiB" in few.memory_warning()
    assert plan_resources(make_settings(models="m"), 1, 270 * MIB).memory_warning() == ""


@pytest.mark.parametrize("cpus", [1, 2, 7, 64])
def test_more_memory_never_makes_anything_smaller_for_the_same_workers(cpus: int) -> None:
    before: dict[int, Settings] = {}
    for mib in range(64, 8192, 16):
        plan = plan_resources(make_settings(models="m"), cpus, mib * MIB)
        sized, workers = plan.settings, plan.settings.process.workers
        last = before.setdefault(workers, sized)
        # A second session for expensive models needs more than what comes with a step.
        if plan.many_threads == sized.engine.engine_threads:
            assert sized.batching.max_queue_bytes >= last.batching.max_queue_bytes
            decoding = sized.engine.decode_threads * sized.limits.max_decoder_bytes
            assert decoding >= last.engine.decode_threads * last.limits.max_decoder_bytes
        before[workers] = sized
        assert workers >= max(before)
    assert max(before) > 1 or cpus == 1


@pytest.mark.parametrize(
    ("mib", "batch_s", "low_memory"),
    [(256, 0.02, True), (512, 0.0356, True), (1024, 0.06, False), (math.inf, 0.06, False)],
)
def test_small_memory_makes_batches_short_and_malloc_thrifty(
    mib: float, batch_s: float, low_memory: bool
) -> None:
    plan = plan_resources(make_settings(models="m"), 1, mib * MIB)
    assert plan.batch_s == pytest.approx(batch_s, abs=1e-4)
    assert plan.low_memory == low_memory
    assert ("MALLOC_ARENA_MAX" in plan.malloc_variables()) == low_memory


@pytest.mark.parametrize(
    ("given", "mib", "says"),
    [
        ({}, 208, ""),
        ({}, 207, "one worker needs about 208 MiB .* the limit is 207 MiB: .* more memory$"),
        ({"workers": 2}, 368, ""),
        (
            {"workers": 8},
            512,
            r"8 workers need about 1328 MiB .* the limit is 512 MiB: .*, or fewer workers "
            r"\(--workers\)$",
        ),
    ],
)
def test_memory_that_is_too_small_is_warned_of_in_one_line(
    given: dict[str, int], mib: int, says: str
) -> None:
    warning = plan_resources(make_settings(models="m", **given), 4, mib * MIB).memory_warning()
    assert re.search(says, warning) if says else not warning
    assert "\n" not in warning


@pytest.mark.parametrize(("given", "threads"), [(1, 8), (2, 4), (3, 2), (8, 1), (20, 1)])
def test_workers_given_threads_share_the_cpus(given: int, threads: int) -> None:
    sized = plan_resources(make_settings(models="m", workers=given), 8).settings
    assert (sized.process.workers, sized.engine.engine_threads) == (given, threads)
    assert sized.engine.decode_threads == threads


@pytest.mark.parametrize(
    ("given", "cpus", "threads"),
    [({}, 2, 2), ({}, 1.5, 1), ({}, 0.5, 1), ({}, 64, 8), ({"engine_threads": 3}, 16, 3)],
)
def test_engine_at_work_alone_has_all_cpus_up_to_eight_unless_a_user_chose(
    given: dict[str, int], cpus: float, threads: int
) -> None:
    assert plan_resources(make_settings(models="m", **given), cpus).many_threads == threads


@pytest.mark.parametrize(
    ("workers", "engine_threads", "threads", "has_allowance"),
    [(2, 1, 2, True), (1, 2, 2, False), (2, 3, 3, False), (4, 1, 8, True)],
)
def test_worker_has_allowance_for_more_threads_only_beside_others(
    tmp_path: Path, workers: int, engine_threads: int, threads: int, has_allowance: bool
) -> None:
    spec = WorkerSpec(
        number=workers,
        port=1,
        http_port=0,
        settings=make_settings(models="m", workers=workers, engine_threads=engine_threads),
        cpus=tuple(range(workers)),
        many_threads=threads,
        low_memory=False,
        batch_s=0.06,
        engine_activity=create(workers),
        switch=0,
        statistics=0,
        statistics_slot=0,
    )
    allowance = ModelLoader(spec).allowance("mnist")
    assert (allowance is not None) == has_allowance
    if allowance is not None:
        assert (allowance.threads, allowance.cpus) == (threads, frozenset(range(workers)))
        assert allowance.activity.begin()


@pytest.mark.parametrize(
    ("given", "has_spare"),
    [({}, True), ({"spare_cpus": "off"}, False), ({"workers": 1}, False)],
)
def test_models_have_spare_cpus_only_beside_other_workers_and_unless_that_is_off(
    given: dict[str, Any], has_spare: bool
) -> None:
    settings = make_settings(models="m", **({"workers": 2, "engine_threads": 1} | given))
    workers = settings.process.workers
    spec = WorkerSpec(
        number=1,
        port=1,
        http_port=0,
        settings=settings,
        cpus=tuple(range(workers)),
        many_threads=2,
        low_memory=False,
        batch_s=0.06,
        engine_activity=create(workers),
        switch=0,
        statistics=0,
        statistics_slot=0,
    )
    loader = ModelLoader(spec)
    assert (loader.spare is not None) == has_spare
    allowance = loader.allowance("mnist")
    assert (allowance is not None and allowance.spare is not None) == has_spare


def test_sizes_given_are_kept() -> None:
    settings = make_settings(
        models="m",
        workers=3,
        engine_threads=5,
        decode_threads=4,
        max_batch=7,
        max_message_bytes=2**30,
        max_queue_bytes=2**33,
        max_stream_bytes=2**33,
        max_decoder_bytes=2**30,
        max_answer_bytes=2**20,
        max_received_bytes=2**33,
        max_connection_bytes=2**32,
    )
    assert plan_resources(settings, 2).settings == settings
    assert plan_resources(settings, 2, 64 * MIB).settings == settings


def test_threads_given_workers_are_chosen() -> None:
    sized = plan_resources(make_settings(models="m", engine_threads=5), 8).settings
    assert (sized.process.workers, sized.engine.engine_threads) == (8, 5)


@pytest.mark.parametrize(("device", "workers"), [("auto", 4), ("cuda", 4), ("cpu", 16)])
def test_with_the_cuda_package_workers_are_few_unless_the_device_is_the_cpu(
    monkeypatch: pytest.MonkeyPatch, device: str, workers: int
) -> None:
    monkeypatch.setattr(resources, "has_cuda_package", lambda: True)
    given = make_settings(models="m", device=device)
    assert plan_resources(given, 16).settings.process.workers == workers


def test_with_the_cuda_package_workers_are_few_if_one_model_may_use_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resources, "has_cuda_package", lambda: True)

    def workers(device: str, of_a_model: str) -> int:
        given = make_settings({"mnist": {"device": of_a_model}}, models="m", device=device)
        return plan_resources(given, 16).settings.process.workers

    assert workers("cpu", "cpu") == 16
    assert workers("cpu", "cuda") == 4
    assert workers("cuda", "cpu") == 4


@pytest.mark.parametrize(
    ("given", "cpus", "affinity", "pinned"),
    [
        ({}, 2, [0, 1], [0, 1]),
        ({}, 3, [7, 2, 4], [2, 4, 7]),
        ({"pin": "off"}, 2, [0, 1], []),
        ({"workers": 1}, 2, [0, 1], []),
        ({"engine_threads": 2}, 2, [0, 1], []),
        # A quota of two CPUs on a machine with four: others would use the same two.
        ({}, 2, [0, 1, 2, 3], []),
        ({}, 1.5, [0, 1], []),
        # A system that does not say which CPUs there are.
        ({}, 2, [], []),
    ],
)
def test_workers_are_kept_on_cpus_only_if_each_has_one_of_the_whole_machine(
    given: dict[str, object], cpus: float, affinity: list[int], pinned: list[int]
) -> None:
    plan = plan_resources(
        make_settings(models="m", **given),  # type: ignore[arg-type]
        cpus,
        affinity=affinity,
    )
    assert list(plan.cpus) == pinned


def listener(port: int, *options: int) -> socket.socket:
    """A socket on a port of this machine that listens."""
    result = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        for option in options:
            result.setsockopt(socket.SOL_SOCKET, option, 1)
        result.bind(("127.0.0.1", port))
        result.listen()
    except OSError:
        result.close()
        raise
    return result


def test_port_0_reserves_a_free_one_for_sharing_workers_alone() -> None:
    with reserve_port("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        assert port > 0
        with pytest.raises(OSError, match="in use"):
            listener(port)
        # Nothing answers there until a worker does, and then all calls are the workers'.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with listener(port, socket.SO_REUSEPORT) as one, listener(port, socket.SO_REUSEPORT) as two:
            one.settimeout(20)
            two.settimeout(20)
            with socket.create_connection(("127.0.0.1", port)):
                pass


def test_port_given_is_reserved_and_free_again_afterwards() -> None:
    with reserve_port("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
    with reserve_port("127.0.0.1", port) as again:
        assert again.getsockname()[1] == port


def test_port_after_its_last_connection_is_free() -> None:
    """A restart is not held up by connections in TIME_WAIT."""
    # The options with which both fronts listen.
    with listener(0, socket.SO_REUSEADDR, socket.SO_REUSEPORT) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
        assert client.recv(1) == b""
        client.close()
    with reserve_port("127.0.0.1", port):
        pass


@pytest.mark.parametrize(
    "options",
    [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,)],
    ids=["alone", "reuse-address", "shared"],
)
def test_port_where_another_listens_says_what_to_do(options: tuple[int, ...]) -> None:
    with listener(0, *options) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartError) as caught:
            reserve_port("127.0.0.1", port)
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; "
        "choose another with --host and --port (0: any free one)"
    )


def test_port_held_by_another_supervisor_is_refused() -> None:
    with reserve_port("127.0.0.1", 0) as holder, pytest.raises(StartError, match="in use"):
        reserve_port("127.0.0.1", holder.getsockname()[1])


def test_port_bound_by_another_that_does_not_listen_yet_is_refused() -> None:
    with closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        with pytest.raises(StartError, match="in use"):
            reserve_port("127.0.0.1", other.getsockname()[1])


def test_host_that_is_not_ours_is_named() -> None:
    # 192.0.2.0/24 is for documentation; no machine has it.
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        reserve_port("192.0.2.1", 0)


def test_host_that_is_no_address_is_named() -> None:
    with pytest.raises(StartError, match=r"cannot listen on \[not:an:address\]:0: "):
        reserve_port("not:an:address", 0)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_host_is_reserved() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    with reserve_port("::1", 0) as holder:
        assert holder.family == socket.AF_INET6
