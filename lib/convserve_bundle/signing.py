"""Signatures of bundles, by OpenSSF Model Signing: made and checked offline, with keys in files.

The package model-signing is imported here alone, and only when something is signed or checked.

Source: https://github.com/ossf/model-signing-spec (v1.0) and
https://sigstore.github.io/model-transparency/model_signing.html.
"""

import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convserve_bundle import digests_file
from convserve_bundle.contract import SIGNATURE_FILE
from convserve_bundle.digests_file import NOT_COVERED, Statement
from convserve_bundle.errors import BundleError, SigningError
from convserve_host import atomic_file

#: What the extra `signing` brings; the second is for certificates.
_PACKAGES = {"model_signing": "model-signing", "OpenSSL": "pyopenssl"}
_KEY, _CERTIFICATE = "PUBLIC KEY", "CERTIFICATE"
#: A block of a PEM file, and its kind.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----[^-]+-----END \1-----", re.DOTALL)
_MOST_SHOWN = 300


@dataclass(frozen=True)
class Signer:
    """Who signs.

    Attributes:
        key: file of the private key (PEM, an elliptic curve, not encrypted).
        certificate: file of the certificate of the key (PEM); None to sign with the key alone.
        chain: files of the certificates between that and the authority.
    """

    key: Path
    certificate: Path | None = None
    chain: Sequence[Path] = ()


def check_installed() -> None:
    """Refuses an installation that can neither sign nor check signatures.

    Raises:
        SigningError: A package is missing; says how to install it.
    """
    missing = [name for module, name in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise SigningError(
            f"{', '.join(missing)} not installed; run: pip install 'convserve[signing]'"
        )


def check(signer: Signer) -> None:
    """Checks that somebody can sign.

    Raises:
        SigningError: The key or the certificate cannot be used, or model-signing is not there.
    """
    check_installed()
    from model_signing import signing

    _use(_config_of(signing), signer)


def sign(folder: Path, signer: Signer) -> bytes:
    """Returns a signature of all files of a folder, and its name: the content of SIGNATURE_FILE.

    Raises:
        SigningError: The key or the certificate cannot be used, or model-signing is not there.
        BundleError: The folder cannot be signed.
    """
    check_installed()
    from model_signing import hashing, signing

    covers = _config_of(hashing).set_ignored_paths(paths=NOT_COVERED, ignore_git_paths=False)
    config = _config_of(signing).set_hashing_config(covers)
    _use(config, signer)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / SIGNATURE_FILE
        try:
            config.sign(folder, made)
        except ValueError as error:
            raise BundleError(f"{folder}: cannot be signed: {_described(error)}") from error
        return made.read_bytes()


def write(signature: bytes, folder: Path) -> Path:
    """Puts a signature into the folder that it signs, in place of an earlier one.

    It is written beside the folder, which never holds a file that no signature covers.

    Args:
        signature: See sign.
        folder: Of the version.

    Returns:
        Its path.

    Raises:
        OSError: The file system refuses.
    """
    path = folder / SIGNATURE_FILE
    temporary = folder.parent / f".{folder.name}-{os.getpid()}.sig"
    try:
        temporary.write_bytes(signature)
        atomic_file.flush(temporary)
        os.replace(temporary, path)
        atomic_file.flush(folder)
    finally:
        temporary.unlink(missing_ok=True)
    return path


class Trust:
    """Whose signatures count.

    Args:
        path: Of a file with public keys, or with certificates of authorities, or both (PEM).

    Raises:
        SigningError: It holds neither, or one that cannot be used; or model-signing is not there.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        check_installed()
        self.path = path
        self._verifiers: list[Any] = []
        self.read()

    def read(self) -> None:
        """Reads the file again; if it cannot be used, what was read before holds.

        Raises:
            SigningError, OSError: As above.
        """
        from model_signing import verifying

        path = self.path
        content = path.read_bytes()
        blocks = [(found[1].decode(), found[0]) for found in _BLOCK.finditer(content)]
        keys = [block for kind, block in blocks if kind == _KEY]
        authorities = [block for kind, block in blocks if kind == _CERTIFICATE]
        if not keys and not authorities or len(blocks) > len(keys) + len(authorities):
            kinds = ", ".join(sorted({kind for kind, _ in blocks})) or "no PEM"
            raise SigningError(
                f"{path}: expected public keys or certificates (PEM), got {kinds.lower()}"
            )
        verifiers: list[Any] = []
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "trusted.pem"
            try:
                for key in keys:
                    file.write_bytes(key)
                    verifiers.append(
                        _config_of(verifying).use_elliptic_key_verifier(public_key=file)
                    )
                if authorities:
                    file.write_bytes(b"\n".join(authorities))
                    verifiers.append(
                        _config_of(verifying).use_certificate_verifier(certificate_chain=[file])
                    )
            except Exception as error:
                # As in sign().
                raise SigningError(f"{path}: {_described(error)}") from error
        self._verifiers = verifiers

    def statement(self, signature: bytes) -> Statement:
        """Returns what a signature that counts says.

        Args:
            signature: The content of SIGNATURE_FILE.

        Raises:
            BundleError: It is not a signature, or not one of those who count.
        """
        problems = []
        _check_hint(signature)
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / SIGNATURE_FILE
            file.write_bytes(signature)
            for verifier in self._verifiers:
                signed = _Signed()
                try:
                    verifier.set_hashing_config(signed).verify(Path(scratch), file)
                except Exception as error:  # noqa: BLE001 - the libraries below raise many kinds
                    problems.append(_described(error))
                else:
                    return signed.statement()
        why = "; ".join(dict.fromkeys(problems))
        raise BundleError(
            f"{SIGNATURE_FILE}: expected a signature by a key that is trusted, got another: {why}"
        )


class _Signed:
    """Stands for the folder when a signature is verified, and keeps what was signed.

    It is to a verifier what model_signing.hashing.Config is; the digests of the folder are compared
    by us, so that they are those of the very bytes that are served.
    """

    def __init__(self) -> None:
        self._manifest: Any = None

    def hash(self, model_path: object, *, files_to_hash: object = None) -> "_Signed":
        """Returns what is compared with what was signed."""
        return self

    def add_ignored_paths(self, *, model_path: object, paths: object) -> None:
        """Does nothing: they are in what was signed."""

    def __eq__(self, manifest: object) -> bool:
        self._manifest = manifest
        return True

    __hash__ = None  # type: ignore[assignment]  # nothing to find again

    def statement(self) -> Statement:
        """Returns what was signed.

        Raises:
            BundleError: It is of another kind, or leaves out the model file.
        """
        return digests_file.checked(
            self._manifest.serialization_type,
            (
                (one.identifier, one.digest.algorithm, one.digest.digest_hex)
                for one in self._manifest.resource_descriptors()
            ),
        )


def _config_of(module: Any) -> Any:
    """Returns a configuration of a module of model_signing; it has no types."""
    return module.Config()


def _use(config: Any, signer: Signer) -> None:
    try:
        if signer.certificate is None:
            config.use_elliptic_key_signer(private_key=signer.key)
        else:
            config.use_certificate_signer(
                private_key=signer.key,
                signing_certificate=signer.certificate,
                # It cannot be empty; the certificate itself adds nothing.
                certificate_chain=signer.chain or [signer.certificate],
            )
    except Exception as error:
        # The libraries below raise errors of many kinds.
        raise SigningError(f"cannot sign with {signer.key}: {_described(error)}") from error


def _check_hint(signature: bytes) -> None:
    """Refuses signatures without the digest of their key, of which model-signing prints warnings.

    Raises:
        BundleError: It is such a one, or not a signature.
    """
    try:
        key = json.loads(signature)["verificationMaterial"].get("publicKey")
        hinted = key is None or bool(key.get("hint"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{SIGNATURE_FILE}: expected a signature, got something else: {type(error).__name__}"
        ) from error
    if not hinted:
        raise BundleError(
            f"{SIGNATURE_FILE}: expected the digest of its key, got a signature of an old form "
            "without one; sign it again"
        )


def _described(error: Exception) -> str:
    """Returns an error of another library in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text[:_MOST_SHOWN]}…" if len(text) > _MOST_SHOWN else text
