import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from convserve_bundle.contract import DIGESTS_FILE
from convserve_bundle.errors import PublishError
from convserve_bundle.publish import check_target, publish


def _content(models: Path) -> dict[str, bytes]:
    """Every file below the models folder, hidden ones too."""
    files = [path for path in models.rglob("*") if path.is_file() and path.name != DIGESTS_FILE]
    return {str(path.relative_to(models)): path.read_bytes() for path in files}


def test_versions_follow_the_highest(tmp_path: Path) -> None:
    (tmp_path / "mnist" / "9").mkdir(parents=True)
    (tmp_path / "mnist" / "notes").mkdir()
    assert publish(b"one", tmp_path, "mnist") == tmp_path / "mnist" / "10" / "model.onnx"
    assert publish(b"two", tmp_path, "mnist") == tmp_path / "mnist" / "11" / "model.onnx"
    assert publish(b"three", tmp_path, "mnist", version=3).parent.name == "3"
    assert _content(tmp_path) == {
        "mnist/10/model.onnx": b"one",
        "mnist/11/model.onnx": b"two",
        "mnist/3/model.onnx": b"three",
    }


def test_what_killed_publishers_have_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    old, young = tmp_path / "mnist" / ".7-aa.tmp", tmp_path / "mnist" / ".8-bb.tmp"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"half")
    os.utime(old, (0, 0))
    publish(b"one", tmp_path, "mnist")
    assert _content(tmp_path) == {
        "mnist/.8-bb.tmp/model.onnx": b"half",
        "mnist/1/model.onnx": b"one",
    }


def test_folder_of_one_model_is_no_folder_of_all(tmp_path: Path) -> None:
    publish(b"one", tmp_path, "mnist")
    with pytest.raises(PublishError, match=f"got that of one, .* may be meant, {tmp_path}$"):
        check_target(tmp_path / "mnist", "mnist", None)
    check_target(tmp_path, "mnist", None)


def test_version_that_no_reader_sees_is_refused_before_and_when_it_is_published(
    tmp_path: Path,
) -> None:
    message = f"^{tmp_path / 'mnist'}: expected as a version .* at most 18 digits, got {10**18}$"
    with pytest.raises(PublishError, match=message):
        check_target(tmp_path, "mnist", 10**18)
    (tmp_path / "mnist" / str(10**18 - 1)).mkdir(parents=True)
    with pytest.raises(PublishError, match=message):
        publish(b"one", tmp_path, "mnist")
    assert _content(tmp_path) == {}


def test_files_beside_the_model_appear_with_it(tmp_path: Path) -> None:
    publish(b"one", tmp_path, "mnist", extra_files={"history.csv": b"epoch\n"})
    assert _content(tmp_path) == {"mnist/1/model.onnx": b"one", "mnist/1/history.csv": b"epoch\n"}


def test_file_that_says_its_version_says_the_one_it_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def another_was_faster(source: Path, target: Path) -> None:
        if target == tmp_path / "mnist/1":
            (target / "model.onnx").mkdir(parents=True)
        rename(source, target)

    monkeypatch.setattr(os, "rename", another_was_faster)
    path = publish(b"one", tmp_path, "mnist", numbered_files={"report.html": b"version %d".__mod__})
    assert path.parent.name == "2"
    assert path.with_name("report.html").read_bytes() == b"version 2"


@pytest.mark.parametrize("occupied", ["bundle", "empty folder", "file"])
def test_version_that_exists_is_never_overwritten(tmp_path: Path, occupied: str) -> None:
    target = tmp_path / "mnist" / "1"
    if occupied == "bundle":
        publish(b"first", tmp_path, "mnist")
    elif occupied == "empty folder":
        target.mkdir(parents=True)
    else:
        target.parent.mkdir()
        target.write_bytes(b"a file")
    before = _content(tmp_path)
    with pytest.raises(PublishError, match=f"{target} exists; a published version is never"):
        publish(b"second", tmp_path, "mnist", version=1)
    with pytest.raises(PublishError, match=f"{target} exists; a published version is never"):
        check_target(tmp_path, "mnist", version=1)
    assert _content(tmp_path) == before
    assert publish(b"second", tmp_path, "mnist").parent.name == "2"


def test_version_taken_at_the_last_moment_goes_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def late(source: Any, target: Any) -> None:
        if target == tmp_path / "mnist/1":
            Path(target).mkdir()
            (Path(target) / "model.onnx").write_bytes(b"theirs")
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert publish(b"ours", tmp_path, "mnist").parent.name == "2"
    assert _content(tmp_path) == {"mnist/1/model.onnx": b"theirs", "mnist/2/model.onnx": b"ours"}


def test_version_asked_for_and_taken_at_the_last_moment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def late(source: Any, target: Any) -> None:
        if target == tmp_path / "mnist/1":
            Path(target).mkdir()
            (Path(target) / "model.onnx").write_bytes(b"theirs")
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(PublishError, match="1 exists"):
        publish(b"ours", tmp_path, "mnist", version=1)
    assert _content(tmp_path) == {"mnist/1/model.onnx": b"theirs"}


def test_concurrent_publishers_each_get_a_version(tmp_path: Path) -> None:
    publishers = 16
    together = threading.Barrier(publishers)
    paths: list[Path] = []

    def one(number: int) -> None:
        together.wait()
        paths.append(publish(b"%d" % number, tmp_path, "mnist"))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(publishers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(path.parent.name) for path in paths) == list(range(1, publishers + 1))
    content = _content(tmp_path)
    assert sorted(int(data) for data in content.values()) == list(range(publishers))


def _fails_with(number: int) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "No space left on device"), (errno.EIO, "Input/output error")],
)
def test_failing_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, reason: str
) -> None:
    publish(b"first", tmp_path, "mnist")
    monkeypatch.setattr(os, call, _fails_with(number))
    with pytest.raises(PublishError, match=f"nothing was published: .*: {reason}"):
        publish(b"second", tmp_path, "mnist")
    assert os.listdir(tmp_path / "mnist") == ["1"]
    assert _content(tmp_path) == {"mnist/1/model.onnx": b"first"}


def test_interrupted_writing_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def interrupt(_: int) -> None:
        seen.append(os.listdir(tmp_path / "mnist"))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        publish(b"model", tmp_path, "mnist")
    [[hidden]] = seen
    assert hidden.startswith("."), "a half written bundle must not look like a version"
    assert os.listdir(tmp_path / "mnist") == []


def test_bundle_is_readable_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = publish(b"model", tmp_path, "mnist")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.parent.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("target", ["models", "models/mnist"])
def test_file_in_place_of_a_folder_is_reported_before_training(tmp_path: Path, target: str) -> None:
    models = tmp_path / "models"
    if target != "models":
        models.mkdir()
    (tmp_path / target).write_text("a file")
    with pytest.raises(PublishError, match=f"the models folder {models} cannot be written to: "):
        check_target(models, "mnist", None)


def test_read_only_file_system_is_reported_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", _fails_with(errno.EROFS))
    refused = "cannot be written to: Read-only file system; mount it writable$"
    with pytest.raises(PublishError, match=refused):
        check_target(tmp_path / "models", "mnist", None)


def test_folder_of_somebody_else_is_reported_with_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", _fails_with(errno.EACCES))
    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    with pytest.raises(PublishError) as caught:
        check_target(tmp_path, "mnist", None)
    assert str(caught.value) == (
        f"the models folder {tmp_path} cannot be written to: Permission denied to user 10001; give "
        "it that owner, or run as another user"
    )


def test_check_leaves_an_empty_models_folder(tmp_path: Path) -> None:
    check_target(tmp_path / "new" / "models", "mnist", 7)
    assert list((tmp_path / "new" / "models").iterdir()) == []
