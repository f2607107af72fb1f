"""The file of digests beside a bundle, and its signature, beside those of model-signing."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_signing.signing
import model_signing.verifying
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from convserve_bundle import digests_file, signing
from convserve_bundle.contract import DIGESTS_FILE, SIGNATURE_FILE
from convserve_bundle.errors import BundleError, SigningError
from convserve_bundle.publish import check_target, publish
from convserve_bundle.signing import Signer, Trust
from convserve_bundle.verification import verify_bundle
from tests.bundles import model
from tests.signing_keys import Authority, new_key


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A published bundle of three files; the path of its model file."""
    content = model({}).SerializeToString()
    extra = {"history.csv": b"epoch\n"}
    numbered = {"report.html": b"version %d".__mod__}
    return publish(content, tmp_path / "models", "mnist", None, None, extra, numbered)


def config_of(module: Any) -> Any:
    """A configuration of a module of model_signing, which has no types."""
    return module.Config()


def add_folder(path: Path) -> None:
    """Put a file in a folder beside a model, whose name sorts by its parts, and cover it."""
    folder = path.parent
    (folder / "a").mkdir()
    (folder / "a" / "b").write_bytes(b"deep")
    (folder / "a.b").write_bytes(b"flat")
    stated = digests_file.Statement({})
    found = digests_file.list_files(folder, stated)
    contents = {name: file.read_bytes() for name, file in found.items()}
    (folder / DIGESTS_FILE).write_bytes(digests_file.statement_of(contents, folder.name))


def payload(signature: Path) -> dict[str, object]:
    """What a signature signs."""
    envelope = json.loads(signature.read_text())["dsseEnvelope"]
    statement: dict[str, object] = json.loads(base64.b64decode(envelope["payload"]))
    # Theirs are in the order of a set.
    statement["predicate"]["serialization"]["ignore_paths"].sort()  # type: ignore[index]
    return statement


def test_file_of_digests_is_what_model_signing_would_sign(bundle: Path, tmp_path: Path) -> None:
    add_folder(bundle)
    folder = bundle.parent
    covers = config_of(model_signing.hashing).set_ignored_paths(
        paths=[DIGESTS_FILE, SIGNATURE_FILE], ignore_git_paths=False
    )
    config = config_of(model_signing.signing).set_hashing_config(covers)
    config.use_elliptic_key_signer(private_key=new_key(tmp_path / "key").private)
    config.sign(folder, tmp_path / "theirs.sig")
    assert json.loads((folder / DIGESTS_FILE).read_text()) == payload(tmp_path / "theirs.sig")


def test_signature_of_ours_is_one_of_model_signing_and_signs_the_file_of_digests(
    bundle: Path, tmp_path: Path
) -> None:
    key = new_key(tmp_path / "key")
    path = signing.write(signing.sign(bundle.parent, Signer(key.private)), bundle.parent)
    assert path == bundle.with_name(SIGNATURE_FILE)
    assert payload(path) == json.loads((bundle.parent / DIGESTS_FILE).read_text())
    theirs = config_of(model_signing.verifying).use_elliptic_key_verifier(public_key=key.public)
    theirs.verify(bundle.parent, path)


def test_signature_that_model_signing_made_by_its_defaults_counts(
    bundle: Path, tmp_path: Path
) -> None:
    key = new_key(tmp_path / "key")
    (bundle.parent / DIGESTS_FILE).unlink()
    config = config_of(model_signing.signing)
    config.use_elliptic_key_signer(private_key=key.private)
    config.sign(bundle.parent, bundle.with_name(SIGNATURE_FILE))
    assert verify_bundle(bundle, Trust(key.public).statement) == {SIGNATURE_FILE: 3}


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda one: str(one.name))
def test_signature_by_one_of_several_keys_counts(
    bundle: Path, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    keys = [new_key(tmp_path / name, curve) for name in ("old", "new", "other")]
    both = tmp_path / "both.pem"
    both.write_bytes(keys[0].public.read_bytes() + keys[1].public.read_bytes())
    for key in keys:
        signing.write(signing.sign(bundle.parent, Signer(key.private)), bundle.parent)
        if key is keys[2]:
            with pytest.raises(
                BundleError,
                match="^model.sig: expected a signature by a key that is trusted, got an",
            ):
                verify_bundle(bundle, Trust(both).statement)
        else:
            found = verify_bundle(bundle, Trust(both).statement)
            assert found == {DIGESTS_FILE: 3, SIGNATURE_FILE: 3}


def test_signature_by_a_certificate_of_the_authority_counts(bundle: Path, tmp_path: Path) -> None:
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    key, certificate = ours.issue("trainer")
    signature = signing.sign(bundle.parent, Signer(key, certificate))
    signing.write(signature, bundle.parent)
    assert SIGNATURE_FILE in verify_bundle(bundle, Trust(ours.certificate).statement)
    with pytest.raises(BundleError, match="^model.sig: expected a signature by a key"):
        verify_bundle(bundle, Trust(other.certificate).statement)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def put(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "model": (lambda folder: flip(folder / "model.onnx"), "model.onnx was changed"),
    "another": (lambda folder: flip(folder / "history.csv"), "history.csv was changed"),
    "missing": (lambda folder: (folder / "report.html").unlink(), "report.html is missing"),
    "extra": (lambda folder: (folder / "late.bin").write_bytes(b""), "late.bin is not covered"),
    "hidden": (lambda folder: (folder / ".late").write_bytes(b""), ".late is not covered"),
    "folder": (
        lambda folder: put(folder / "d" / "f"),
        "d/f is not covered",
    ),
    "link": (
        lambda folder: (folder / "link").symlink_to("model.onnx"),
        "link: expected a file, got another kind of entry",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_folder_that_was_changed_is_refused_with_or_without_a_signature(
    bundle: Path, tmp_path: Path, change: str
) -> None:
    key = new_key(tmp_path / "key")
    signing.write(signing.sign(bundle.parent, Signer(key.private)), bundle.parent)
    change_it, reason = CHANGES[change]
    change_it(bundle.parent)
    with pytest.raises(BundleError, match=reason):
        verify_bundle(bundle)
    (bundle.parent / DIGESTS_FILE).unlink()
    assert verify_bundle(bundle) == {}
    with pytest.raises(BundleError, match=reason):
        verify_bundle(bundle, Trust(key.public).statement)


def edited(content: bytes, edit: Callable[[dict[str, object]], object]) -> bytes:
    statement = json.loads(content)
    edit(statement)
    return json.dumps(statement).encode()


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda one: one.update(_type="x"), "_type: expected https://in-toto.io/Statement/v1"),
        (lambda one: one.update(predicateType="x"), "predicateType: expected https://model_sig"),
        (lambda one: one.pop("subject"), "expected a statement of digests, got something else"),
        (lambda one: one["subject"][0]["digest"].update(sha256="0"), "subject.digest: expected 0"),
        (lambda one: one["predicate"]["serialization"].update(method="shards"), "expected files"),
        (lambda one: one["predicate"]["resources"].pop(1), "expected model.onnx among its files"),
        (lambda one: one["predicate"]["resources"].pop(0), "subject.digest: expected "),
        (lambda one: one["predicate"]["resources"][0].update(name="../x"), "expected paths within"),
        (lambda one: one["predicate"]["resources"][0].update(name="./x"), "expected paths within"),
        (lambda one: one["predicate"]["resources"][0].update(name="/x"), "expected paths within"),
        (lambda one: one["predicate"]["resources"][0].update(digest="0"), "expected a SHA-256 of"),
        (lambda one: one["predicate"]["resources"][0].update(algorithm="md5"), "expected sha256"),
        (lambda one: one["predicate"]["resources"].append({}), "expected a statement of digests"),
    ],
)
def test_file_of_digests_that_is_none_is_refused(
    bundle: Path, edit: Callable[[dict[str, object]], object], reason: str
) -> None:
    path = bundle.with_name(DIGESTS_FILE)
    path.write_bytes(edited(path.read_bytes(), edit))
    with pytest.raises(BundleError, match=reason) as caught:
        verify_bundle(bundle)
    assert str(caught.value).startswith(f"{DIGESTS_FILE}: ")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 100_000])
def test_file_that_is_no_statement_and_no_signature_is_refused(
    bundle: Path, tmp_path: Path, content: bytes
) -> None:
    trust = Trust(new_key(tmp_path / "key").public)
    bundle.with_name(SIGNATURE_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=f"^{SIGNATURE_FILE}: expected a signature, got somethin"):
        verify_bundle(bundle, trust.statement)
    bundle.with_name(DIGESTS_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=f"^{DIGESTS_FILE}: expected a statement of digests"):
        verify_bundle(bundle)


def test_pipe_in_place_of_a_file_is_not_opened(bundle: Path) -> None:
    bundle.with_name(DIGESTS_FILE).unlink()
    os.mkfifo(bundle.with_name(DIGESTS_FILE))
    with pytest.raises(BundleError, match=f"^{DIGESTS_FILE}: expected a file, got another kind"):
        verify_bundle(bundle)


def test_large_file_of_digests_is_not_read(bundle: Path) -> None:
    with bundle.with_name(DIGESTS_FILE).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BundleError, match=f"^{DIGESTS_FILE}: expected at most 4194304 bytes"):
        verify_bundle(bundle)


def test_signature_whose_payload_was_replaced_is_refused(bundle: Path, tmp_path: Path) -> None:
    key = new_key(tmp_path / "key")
    path = signing.write(signing.sign(bundle.parent, Signer(key.private)), bundle.parent)
    (bundle.parent / "late.bin").write_bytes(b"")
    made = json.loads(path.read_text())
    files = digests_file.list_files(bundle.parent, digests_file.Statement({}))
    contents = {name: file.read_bytes() for name, file in files.items()}
    statement = digests_file.statement_of(contents, "1")
    made["dsseEnvelope"]["payload"] = base64.b64encode(statement).decode()
    path.write_text(json.dumps(made))
    (bundle.parent / DIGESTS_FILE).unlink()
    with pytest.raises(BundleError, match="^model.sig: expected a signature by a key"):
        verify_bundle(bundle, Trust(key.public).statement)


def test_key_that_cannot_be_used_is_named(bundle: Path, tmp_path: Path) -> None:
    key = new_key(tmp_path / "key")
    for content, reason in (
        (b"nothing", "expected public keys or certificates (PEM), got no pem"),
        (key.private.read_bytes(), "expected public keys or certificates (PEM), got private key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", ""),
    ):
        path = tmp_path / "trusted.pem"
        path.write_bytes(content)
        with pytest.raises(SigningError) as caught:
            Trust(path)
        assert str(caught.value).startswith(f"{path}: {reason}")
    with pytest.raises(SigningError, match=f"^cannot sign with {key.public}: "):
        signing.sign(bundle.parent, Signer(key.public))


def test_version_is_signed_before_it_appears(tmp_path: Path) -> None:
    key, models = new_key(tmp_path / "key"), tmp_path / "models"
    content = model({}).SerializeToString()
    for number in (1, 2):
        path = publish(content, models, "mnist", None, Signer(key.private))
        assert path.parent.name == str(number)
        verify_bundle(path, Trust(key.public).statement)
        signed = payload(path.with_name(SIGNATURE_FILE))
        assert signed["subject"][0]["name"] == str(number)  # type: ignore[index]
        with pytest.raises(SigningError, match=f"^cannot sign with {key.public}: "):
            check_target(models, "mnist", None, Signer(key.public))
        with pytest.raises(SigningError, match=f"^cannot sign with {key.public}: "):
            publish(content, models, "mnist", None, Signer(key.public))
        assert len(list((models / "mnist").iterdir())) == number
    check_target(models, "mnist", None, Signer(key.private))


def test_trust_goes_on_as_before_while_its_file_cannot_be_used(
    bundle: Path, tmp_path: Path
) -> None:
    key, other = new_key(tmp_path / "key"), new_key(tmp_path / "other")
    signing.write(signing.sign(bundle.parent, Signer(key.private)), bundle.parent)
    trust = Trust(key.public)
    content = key.public.read_bytes()
    key.public.write_bytes(b"")
    with pytest.raises(SigningError):
        trust.read()
    verify_bundle(bundle, trust.statement)
    key.public.write_bytes(other.public.read_bytes())
    trust.read()
    with pytest.raises(BundleError):
        verify_bundle(bundle, trust.statement)
    key.public.write_bytes(content)


def test_installation_without_model_signing_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "find_spec", lambda name: None)
    with pytest.raises(SigningError, match=r"run: pip install 'convserve\[signing\]'$"):
        Trust(tmp_path / "key.pub")
