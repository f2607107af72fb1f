"""What the supervisor chooses for a machine, and the port that it holds for its workers."""

import socket
from contextlib import closing
from pathlib import Path

import pytest

from convserve_server import supervisor
from convserve_server.config import Settings
from convserve_server.neighbours import create
from convserve_server.supervisor import (
    StartError,
    choose_cpus,
    choose_sizes,
    choose_wide,
    reserve_port,
)
from convserve_server.worker import Place


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
    sized = choose_sizes(Settings(models="m"), cpus)
    assert (sized.workers, sized.engine_threads) == (workers, threads)


@pytest.mark.parametrize(("given", "threads"), [(1, 8), (2, 4), (3, 2), (8, 1), (20, 1)])
def test_workers_given_threads_share_the_cpus(given: int, threads: int) -> None:
    sized = choose_sizes(Settings(models="m", workers=given), 8)
    assert (sized.workers, sized.engine_threads) == (given, threads)
    assert sized.decode_threads == threads


@pytest.mark.parametrize(
    ("given", "cpus", "threads"),
    [({}, 2, 2), ({}, 1.5, 1), ({}, 0.5, 1), ({}, 64, 8), ({"engine_threads": 3}, 16, 3)],
)
def test_lone_engine_has_all_cpus_up_to_eight_unless_a_user_chose(
    given: dict[str, int], cpus: float, threads: int
) -> None:
    assert choose_wide(Settings(models="m", **given), cpus) == threads  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("workers", "engine_threads", "threads", "has_room"),
    [(2, 1, 2, True), (1, 2, 2, False), (2, 3, 3, False), (4, 1, 8, True)],
)
def test_worker_has_room_for_more_threads_only_beside_others(
    tmp_path: Path, workers: int, engine_threads: int, threads: int, has_room: bool
) -> None:
    create(tmp_path / "engines", workers)
    place = Place(number=workers, engines=str(tmp_path / "engines"), threads=threads, cpus=[0, 1])
    room = place.room(Settings(models="m", workers=workers, engine_threads=engine_threads))
    assert (room is not None) == has_room
    if room is not None:
        assert (room.threads, room.cpus) == (threads, frozenset({0, 1}))
        assert room.neighbours.begin()


def test_sizes_given_are_kept() -> None:
    settings = Settings(models="m", workers=3, engine_threads=5, decode_threads=4, max_batch=7)
    assert choose_sizes(settings, 2) == settings


def test_threads_given_workers_are_chosen() -> None:
    sized = choose_sizes(Settings(models="m", engine_threads=5), 8)
    assert (sized.workers, sized.engine_threads) == (8, 5)


@pytest.mark.parametrize(("device", "workers"), [("auto", 4), ("cuda", 4), ("cpu", 16)])
def test_with_the_cuda_package_workers_are_few_unless_the_device_is_the_cpu(
    monkeypatch: pytest.MonkeyPatch, device: str, workers: int
) -> None:
    monkeypatch.setattr(supervisor, "has_cuda_package", lambda: True)
    assert choose_sizes(Settings(models="m", device=device), 16).workers == workers


@pytest.mark.parametrize(
    ("given", "cpus", "affinity", "pinned"),
    [
        ({}, 2, [0, 1], [0, 1]),
        ({}, 3, [7, 2, 4], [2, 4, 7]),
        ({"pin": "off"}, 2, [0, 1], []),
        ({"workers": 1}, 2, [0, 1], []),
        ({"engine_threads": 2}, 2, [0, 1], []),
        # A quota of two CPUs on a machine with four: others would take the same two.
        ({}, 2, [0, 1, 2, 3], []),
        ({}, 1.5, [0, 1], []),
        # A system that does not say which CPUs there are.
        ({}, 2, [], []),
    ],
)
def test_workers_are_kept_on_cpus_only_if_each_has_one_of_the_whole_machine(
    given: dict[str, object], cpus: float, affinity: list[int], pinned: list[int]
) -> None:
    sized = choose_sizes(Settings(models="m", **given), cpus)  # type: ignore[arg-type]
    assert choose_cpus(sized, cpus, affinity) == pinned


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
        "choose another with --host and --port (0 takes a free one)"
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
