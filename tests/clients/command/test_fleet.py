"""`convserve models --fleet` and `convserve label`: several servers, each asked by itself."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from convserve.command import fleet
from convserve.main import main
from convserve_bundle.labels_file import VersionLabels, read_labels
from convserve_protos import classifier_pb2
from tests.bundles import write_bundle
from tests.clients.scripted_server import ScriptedServer, model

Capture = pytest.CaptureFixture[str]


def serve(server: ScriptedServer, *versions: int, stable: int) -> None:
    """Have a server list versions of mnist, of which one is stable."""
    server.models = [model("mnist", version) for version in versions]
    for one in server.models:
        if one.version == stable:
            one.default = True
            one.version_labels.append("stable")


@pytest.fixture
def servers(server: ScriptedServer) -> Iterator[list[ScriptedServer]]:
    """Two servers with mnist/2 and mnist/1, which is stable."""
    both = [server, ScriptedServer()]
    for one in both:
        serve(one, 2, 1, stable=1)
    yield both
    both[1].stop()


@pytest.fixture
def names(servers: list[ScriptedServer]) -> str:
    return ",".join(one.address for one in servers)


def absent_address() -> str:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_each_server_is_listed_and_status_0_says_that_all_have_the_same(
    servers: list[ScriptedServer], names: str, capsys: Capture
) -> None:
    assert main(["models", "--fleet", names]) == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    columns = ["model", "version", "replica", "state", "default", "labels", "differs", "reason"]
    assert head == columns
    first, second = sorted(one.address for one in servers)
    expected = [
        *(["mnist", "2", address, "served"] for address in (first, second)),
        *(["mnist", "1", address, "served", "yes", "stable"] for address in (first, second)),
    ]
    assert sorted(rows) == sorted(expected)
    assert [row[1] for row in rows] == ["2", "2", "1", "1"]


def test_differences_are_marked_and_end_with_status_3(
    servers: list[ScriptedServer], names: str, capsys: Capture
) -> None:
    serve(servers[1], 3, 1, stable=1)
    servers[1].refused = [classifier_pb2.RefusedVersion(name="mnist", version=2, reason="damaged")]
    assert main(["models", "--fleet", names, "--format", "jsonl"]) == 3
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = {(row["version"], row["replica"]): row for row in rows}
    a, b = (one.address for one in servers)
    assert {key: row["state"] for key, row in found.items()} == {
        (3, a): "absent",
        (3, b): "served",
        (2, a): "served",
        (2, b): "refused",
        (1, a): "served",
        (1, b): "served",
    }
    assert {row["version"] for row in rows if row["differs"]} == {3, 2}
    assert found[2, b]["reason"] == "damaged"
    assert (found[1, a]["default"], found[1, a]["labels"]) == (True, ["stable"])


def test_server_that_gives_no_answer_is_named_and_the_others_are_listed(
    servers: list[ScriptedServer], names: str, capsys: Capture
) -> None:
    gone = absent_address()
    assert main(["models", "--fleet", f"{names},{gone}", "--format", "json"]) == 1
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert len(rows) == 5
    assert rows[-1]["replica"] == gone
    assert rows[-1]["error"].startswith(f"cannot connect to {gone}")
    assert err.startswith(f"convserve: no answer of {gone}: cannot connect to ")


def test_servers_are_waited_for(server: ScriptedServer, capsys: Capture) -> None:
    gone = absent_address()
    later: list[ScriptedServer] = []

    def start(*_: object) -> None:
        if not later:
            later.append(ScriptedServer(gone))

    server.before_list = start
    try:
        fleet_of = f"{server.address},{gone}"
        assert main(["models", "--fleet", fleet_of, "--wait", "60"]) == 0
    finally:
        for one in later:
            one.stop()
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3


def test_name_means_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "both": ["10.0.0.2", "10.0.0.1", "fd00::1"],
        "v6": ["fd00::2", "fd00::2"],
    }

    def getaddrinfo(host: str, port: int, type: int) -> list[Any]:  # noqa: A002 - its own
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, type, 6, "", (one, port))
            for one in found.get(host, [host])
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    given = ["dns:///both:5", "10.0.0.1:5", "v6:7", "unix:/run/one"]
    assert fleet.addresses(given) == [
        ("10.0.0.1:5", "both"),
        ("10.0.0.2:5", "both"),
        ("[fd00::2]:7", "v6"),
        ("unix:/run/one", ""),
    ]
    assert fleet.addresses(["ipv4:10.0.0.1:5,10.0.0.9:6"]) == [
        ("10.0.0.1:5", "10.0.0.1"),
        ("10.0.0.9:6", "10.0.0.9"),
    ]


def test_name_without_an_address_says_so(capsys: Capture) -> None:
    assert main(["models", "--fleet", "none.invalid:5"]) == 1
    assert capsys.readouterr().err.startswith(
        "convserve: fleet: expected a name with addresses, got none.invalid: "
    )


@pytest.mark.parametrize("text", ["", "a:5,", "a", "http://a:5"])
def test_fleet_that_is_no_address_ends_with_status_2(text: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        main(["models", "--fleet", text])
    assert end.value.code == 2
    assert "--fleet: expected HOST:PORT" in capsys.readouterr().err


# Labels


class Store:
    """A models folder with mnist/1, mnist/2 and labels, whose servers follow at once."""

    def __init__(self, folder: Path, servers: list[ScriptedServer]) -> None:
        for version in (1, 2):
            write_bundle(folder, version=version)
        self.folder, self._file = folder, folder / "mnist/labels.json"
        #: Those of the servers that follow.
        self.following = servers
        self.move("stable", 1)

    def labels(self) -> VersionLabels:
        return read_labels(self._file.read_bytes())

    def move(self, *arguments: object, fleet: str = "") -> int:
        servers = ["--fleet", fleet, "--wait", "0"] if fleet else ["--force"]
        for one in self.following:
            one.before_list = self._follow(one)
        return main(
            ["label", "set", "mnist", *map(str, arguments), "--models", str(self.folder), *servers]
        )

    def _follow(self, server: ScriptedServer) -> Callable[[], None]:
        def follow() -> None:
            serve(server, 2, 1, stable=self.labels().labels["stable"])

        return follow


@pytest.fixture
def store(tmp_path: Path, servers: list[ScriptedServer]) -> Store:
    return Store(tmp_path / "models", servers)


def test_label_moves_to_what_all_servers_have_and_back(
    store: Store, names: str, capsys: Capture
) -> None:
    assert store.move("stable", 2, fleet=names) == 0
    assert store.labels() == VersionLabels({"stable": 2}, {"stable": 1})
    assert store.move("stable", 1, "--format", "jsonl", fleet=names) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "model": "mnist",
        "label": "stable",
        "version": 1,
        "previous": 2,
    }


def test_label_stays_where_a_server_lacks_the_version(
    store: Store, servers: list[ScriptedServer], names: str, capsys: Capture
) -> None:
    store.following = []
    for one in servers:
        one.before_list = lambda: None
    serve(servers[0], 1, stable=1)
    servers[1].models = []
    servers[1].refused = [classifier_pb2.RefusedVersion(name="mnist", version=2, reason="damaged")]
    gone = absent_address()
    assert store.move("stable", 2, fleet=f"{names},{gone}") == 1
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == (
        "convserve: label stable of mnist has not moved: not all servers can serve version 2 "
        "(--force moves it all the same)"
    )
    a, b = (one.address for one in servers)
    assert rest[0] == f"convserve: {a}: mnist/2 is not loaded; there is mnist/1"
    assert rest[1] == f"convserve: {b}: mnist/2 is refused: damaged"
    assert rest[2].startswith(f"convserve: {gone}: cannot connect to ")
    assert store.labels() == VersionLabels({"stable": 1})


def test_forced_label_asks_no_server(store: Store, servers: list[ScriptedServer]) -> None:
    asked = [one.lists for one in servers]
    assert store.move("stable", 2) == 0
    assert store.labels().labels == {"stable": 2}
    assert [one.lists for one in servers] == asked


def test_server_that_does_not_follow_in_time_is_named(
    store: Store, servers: list[ScriptedServer], names: str, capsys: Capture
) -> None:
    store.following = servers[:1]
    servers[1].before_list = lambda: None
    assert store.move("stable", 2, fleet=names) == 1
    assert capsys.readouterr().err.splitlines() == [
        "convserve: label stable of mnist names version 2, which not all servers follow after 0 s",
        f"convserve: {servers[1].address}: stable is 1",
    ]
    assert store.labels().labels == {"stable": 2}


def test_version_that_is_not_there_is_refused_before_a_server_is_asked(
    store: Store, servers: list[ScriptedServer], names: str, capsys: Capture
) -> None:
    asked = [one.lists for one in servers]
    assert store.move("stable", 9, fleet=names) == 1
    assert capsys.readouterr().err == (
        f"convserve: version: expected one of mnist in {store.folder} (1, 2), got 9\n"
    )
    assert [one.lists for one in servers] == asked


def test_labels_are_listed_and_removed(store: Store, capsys: Capture) -> None:
    store.move("canary", 2)
    capsys.readouterr()
    models = ["--models", str(store.folder)]
    assert main(["label", "list", *models]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["model", "label", "version", "previous"],
        ["mnist", "canary", "2"],
        ["mnist", "stable", "1"],
    ]
    assert main(["label", "remove", "mnist", "canary", *models]) == 0
    assert store.labels() == VersionLabels({"stable": 1})
    assert main(["label", "list", "cats", *models]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == [
        "model", "label", "version", "previous",
    ]  # fmt: skip


def test_stable_is_removed_only_by_force(store: Store, capsys: Capture) -> None:
    remove = ["label", "remove", "mnist", "stable", "--models", str(store.folder)]
    assert main(remove) == 1
    assert "label: expected another one than stable" in capsys.readouterr().err
    assert store.labels().labels == {"stable": 1}
    assert main([*remove, "--force"]) == 0
    assert store.labels().labels == {}


def test_folder_may_come_from_the_variable_of_the_server(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("CONVSERVE_MODELS", str(store.folder))
    capsys.readouterr()
    assert main(["label", "list", "mnist", "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == "stable"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist", "stable", "2"], "one of the arguments --fleet --force is required"),
        (["mnist", "a b", "2", "--force"], "argument LABEL: expected as a label 1 to 64 of "),
        (["mnist", "stable", "0", "--force"], "argument VERSION: expected an integer of 1 or more"),
        (["mnist", "stable", "2", "--force", "--fleet", "a:5"], "not allowed with argument"),
    ],
)
def test_wrong_arguments_end_with_status_2(
    store: Store, arguments: list[str], message: str, capsys: Capture
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["label", "set", *arguments, "--models", str(store.folder)])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert store.labels().labels == {"stable": 1}


def test_store_whose_client_is_not_installed_ends_with_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("convserve_store.location.find_spec", lambda name: None)
    assert main(["label", "list", "--models", "s3://bucket/models"]) == 2
    assert "run: pip install 'convserve[s3]'" in capsys.readouterr().err
