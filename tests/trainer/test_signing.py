"""convserve-train sign and verify: what they print, and how they end."""

from pathlib import Path

import pytest

from convserve_bundle import signing
from convserve_bundle.publish import publish
from convserve_trainer.main import main
from tests.bundles import model
from tests.signing_keys import Authority, new_key


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The folder of a published version."""
    content = model({}).SerializeToString()
    return publish(
        content, tmp_path / "models", "mnist", extra_files={"history.csv": b"epoch\n"}
    ).parent


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(one) for one in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_bundle_is_signed_and_verified(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, other = new_key(tmp_path / "key"), new_key(tmp_path / "other")
    digests = f"{bundle}: as digests.json says, 2 files\n"
    assert run(capsys, "verify", bundle.parent) == (0, digests, "")
    status, _, problem = run(capsys, "verify", bundle, "--key", key.public)
    assert status == 1
    assert problem == f"convserve-train: {bundle}: model.sig: expected a signature, got none\n"
    signed = f"signed {bundle}: {bundle / 'model.sig'}\n"
    assert run(capsys, "sign", bundle.parent, "--key", key.private) == (0, signed, "")
    signature = f"{bundle}: as model.sig says, 2 files\n"
    assert run(capsys, "verify", bundle, "--key", key.public) == (0, digests + signature, "")
    status, out, problem = run(capsys, "verify", bundle, "--key", other.public)
    assert (status, out) == (1, "")
    assert "model.sig: expected a signature by a key that is trusted, got another" in problem
    # Signed again, by another.
    assert run(capsys, "sign", bundle, "--key", other.private)[0] == 0
    assert run(capsys, "verify", bundle, "--key", other.public)[0] == 0
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["1"]


def test_training_publishes_what_is_signed(
    mnist_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = new_key(tmp_path / "key")
    models = tmp_path / "models"
    fit = ["fit", "digits", "--data", mnist_folder, "--models", models, "--epochs", 1]
    fit += ["--limit", 64, "--min-accuracy", 0, "--sign-key"]
    status, _, problem = run(capsys, *fit, key.public)
    assert (status, list(models.iterdir()) if models.exists() else []) == (1, [])
    assert problem.startswith(f"convserve-train: cannot sign with {key.public}: ")
    assert run(capsys, *fit, key.private)[0] == 0
    assert run(capsys, "verify", models / "mnist", "--key", key.public)[0] == 0


def test_bundle_is_signed_by_a_certificate(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path / "authority")
    key, certificate = authority.issue("trainer")
    assert run(capsys, "sign", bundle, "--key", key, "--certificate", certificate)[0] == 0
    assert run(capsys, "verify", bundle, "--key", authority.certificate)[0] == 0
    assert run(capsys, "verify", bundle, "--key", certificate)[0] == 1


def test_changed_bundle_is_neither_verified_nor_signed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "history.csv").write_bytes(b"another\n")
    problem = (
        "digests.json: expected the files that it covers, as they were: history.csv was changed\n"
    )
    status, out, printed = run(capsys, "verify", bundle)
    assert (status, out, printed) == (1, "", f"convserve-train: {bundle}: {problem}")
    key = new_key(tmp_path / "key")
    status, out, printed = run(capsys, "sign", bundle, "--key", key.private)
    assert (status, out, printed) == (1, "", f"convserve-train: {bundle}: {problem}")
    assert not (bundle / "model.sig").exists()


def test_what_cannot_be_used_is_named(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = new_key(tmp_path / "key")
    assert run(capsys, "verify", tmp_path / "none")[0] == 2
    status, _, printed = run(capsys, "sign", bundle, "--key", tmp_path / "none.pem")
    assert status == 1
    assert "No such file or directory" in printed
    status, _, printed = run(capsys, "fit", "digits", "--sign-certificate", key.public)
    assert (status, printed) == (
        2,
        "convserve-train: --sign-certificate: expected --sign-key beside it, got none\n",
    )
    status, _, printed = run(capsys, "sign", bundle, "--key", key.private, "--chain", key.public)
    assert (status, printed) == (
        2,
        "convserve-train: --chain: expected --certificate beside it, got none\n",
    )
    (bundle / "digests.json").unlink()
    status, _, printed = run(capsys, "verify", bundle)
    assert status == 1
    assert printed.endswith("digests.json: expected a file of digests, got none\n")
    monkeypatch.setattr(signing, "find_spec", lambda name: None)
    status, _, printed = run(capsys, "sign", bundle, "--key", key.private)
    assert (status, printed) == (
        1,
        "convserve-train: model-signing, pyopenssl not installed; run: pip install "
        "'convserve[signing]'\n",
    )
