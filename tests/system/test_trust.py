"""Whose bundles a server serves: digests, signatures, and files that ask for too much."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from convserve import Client, ModelNotFound
from convserve_bundle import signing
from convserve_bundle.contract import DIGESTS_FILE, SIGNATURE_FILE
from convserve_bundle.publish import publish
from convserve_bundle.signing import Signer
from convserve_server.main import main
from tests import onnx_models
from tests.bundles import digit_of, write_bundle
from tests.lib.bundle.test_graph_check import HOSTILE
from tests.signing_keys import Key, new_key
from tests.system.conftest import StartServer
from tests.system.test_supervision import until

DIGIT = 3


def put(models: Path, name: str, *, version: int = 1) -> Path:
    """Publish the model of digits with its digests; returns its version's folder."""
    made = write_bundle(models.parent / "made", name, version).read_bytes()
    return publish(made, models, name, version, None, {"report.html": b"a report"}).parent


def sign(folder: Path, key: Key) -> None:
    signing.write(signing.sign(folder, Signer(key.private)), folder)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def reasons(client: Client) -> dict[str, str]:
    return {f"{one.name}/{one.version}": one.reason for one in client.refused()}


def served(client: Client) -> list[str]:
    return [f"{one.name}/{one.version}" for one in client.models()]


def test_bundle_that_is_not_what_its_digests_say_is_refused_and_others_are_served(
    start_server: StartServer, models: Path
) -> None:
    flip(put(models, "changed") / "model.onnx")
    put(models, "whole")
    (put(models, "more") / "late.bin").write_bytes(b"late")
    server = start_server("--workers", "2")
    with Client(server.wait_until_serving()) as client:
        # mnist/1 has no digests.
        until(lambda: served(client) == ["mnist/1", "whole/1"], "both that are whole")
        was = "digests.json: expected the files that it covers, as they were:"
        assert reasons(client) == {
            "changed/1": f"{was} model.onnx was changed",
            "more/1": f"{was} late.bin is not covered",
        }
        logged = [one["message"] for one in server.log if "is refused" in one["message"]]
        assert sorted(logged) == [
            f"{name} is refused: {why}" for name, why in reasons(client).items()
        ]
        assert client.classify(digit_of(DIGIT), model="whole").label == str(DIGIT)
        with pytest.raises(ModelNotFound):
            client.classify(digit_of(DIGIT), model="changed")
        # It is mended without a restart.
        (models / "more/1/late.bin").unlink()
        until(lambda: "more/1" in served(client), "the mended one")
    assert server.terminate() == 0


def test_only_bundles_with_a_signature_that_counts_are_served(
    start_server: StartServer, models: Path, tmp_path: Path
) -> None:
    ours, other = new_key(tmp_path / "ours"), new_key(tmp_path / "other")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(ours.public.read_bytes())
    names = ("signed", "other", "flipped", "gone", "late", "replaced")
    folders = {name: put(models, name) for name in names}
    for name, folder in folders.items():
        sign(folder, other if name == "other" else ours)
    flip(folders["flipped"] / "model.onnx")
    (folders["flipped"] / DIGESTS_FILE).unlink()
    (folders["gone"] / "report.html").unlink()
    (folders["late"] / "late.bin").write_bytes(b"late")
    shutil.copy(folders["other"] / SIGNATURE_FILE, folders["replaced"])
    server = start_server("--workers", "2", "--require-signature", str(trusted), "--scan-s", "0.1")
    with Client(server.wait_until_serving()) as client:
        until(lambda: served(client) == ["signed/1"], "the one that is signed")
        why = reasons(client)
        assert why.keys() == {"mnist/1", *(f"{name}/1" for name in names)} - {"signed/1"}
        assert why["mnist/1"] == "model.sig: expected a signature, got none"
        untrusted = "model.sig: expected a signature by a key that is trusted, got another: "
        assert why["other/1"].startswith(untrusted)
        assert why["replaced/1"].startswith(untrusted)
        was = "expected the files that it covers, as they were:"
        assert why["flipped/1"] == f"model.sig: {was} model.onnx was changed"
        assert why["gone/1"] == f"digests.json: {was} report.html is missing"
        assert why["late/1"] == f"digests.json: {was} late.bin is not covered"
        assert client.classify(digit_of(DIGIT), model="signed").label == str(DIGIT)

        # Signed now, and signed by one whose key counts from now on.
        sign(models / "mnist" / "1", ours)
        until(lambda: "mnist/1" in served(client), "the one that was signed late")
        both = ours.public.read_bytes() + other.public.read_bytes()
        trusted.write_bytes(both)
        until(lambda: "other/1" in served(client), "the one of the other key")
        # The signature of another bundle.
        assert reasons(client)["replaced/1"] == f"model.sig: {was} model.onnx was changed"

        # What is served goes on; a changed file is not loaded by anybody.
        flip(folders["signed"] / "model.onnx")
        server.wait_for("signed/1 is refused: ")
        assert client.classify(digit_of(DIGIT), model="signed").label == str(DIGIT)
    assert server.terminate() == 0


def test_external_data_of_a_signed_model_is_that_which_was_signed(
    start_server: StartServer, models: Path, tmp_path: Path
) -> None:
    key = new_key(tmp_path / "key")
    weights = np.array([1, 2, 3], np.float32).tobytes()
    for name in ("sums", "swapped"):
        model = onnx_models.external().SerializeToString()
        folder = publish(model, models, name, 1, None, {"weights.bin": weights}).parent
        sign(folder, key)
    (models / "swapped/1/weights.bin").write_bytes(weights[::-1])
    server = start_server("--workers", "1", "--require-signature", str(key.public))
    with Client(server.wait_until_serving()) as client:
        until(lambda: "swapped/1" in reasons(client), "the one that was changed")
        assert reasons(client)["swapped/1"].endswith("weights.bin was changed")
        # Its line may come before that of the server, or after it.
        until(
            lambda: any("sums/1 is served by" in entry["message"] for entry in server.log),
            "the one that was not changed",
        )
    assert server.terminate() == 0


def test_file_of_keys_that_cannot_be_used_ends_the_start(
    start_server: StartServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.pem").write_text("no key")
    for path, reason in (
        (tmp_path / "bad.pem", "expected public keys or certificates (PEM), got no pem"),
        (tmp_path / "none.pem", "No such file or directory"),
    ):
        server = start_server("--require-signature", str(path))
        assert server.wait() == 2
        printed = capfd.readouterr().err
        assert "require_signature: " in printed
        assert reason in printed


def test_file_that_asks_for_too_much_is_refused_and_the_worker_lives(
    start_server: StartServer, models: Path
) -> None:
    for name, (make, _) in HOSTILE.items():
        onnx_models.write(models, name, make())
    with (onnx_models.write(models, "huge", onnx_models.two_inputs())).open("r+b") as file:
        file.truncate(2**34)
    server = start_server("--workers", "1", "--device", "cpu")
    with Client(server.wait_until_serving()) as client:
        pids = server.worker_pids()
        until(lambda: len(reasons(client)) == len(HOSTILE) + 1, "all of them")
        why = reasons(client)
        assert why.pop("huge/1") == "model.onnx: expected at most 2147483647 bytes, got 17179869184"
        for name, (_, reason) in HOSTILE.items():
            assert reason in why[f"{name}/1"]
        assert served(client) == ["mnist/1"]
        assert client.classify(digit_of(DIGIT)).label == str(DIGIT)
        assert server.worker_pids() == pids
    assert server.terminate() == 0


def test_server_without_what_checks_signatures_says_how_to_get_it(
    models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "find_spec", lambda name: None)
    key = new_key(tmp_path / "key")
    given = ["--models", str(models), "--require-signature", str(key.public)]
    assert main(given) == 1
    assert capfd.readouterr().err.endswith(
        "require_signature: model-signing, pyopenssl not installed; run: pip install "
        "'convserve[signing]'\n"
    )
