"""Keys and certificates that sign bundles in tests."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Key:
    """A pair of keys, in files."""

    private: Path
    public: Path


def new_key(stem: Path, curve: ec.EllipticCurve | None = None) -> Key:
    """A new pair of keys, beside each other."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    made = Key(stem.with_suffix(".pem"), stem.with_suffix(".pub"))
    made.private.write_bytes(_pem(key))
    public = key.public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    made.public.write_bytes(public.public_bytes(serialization.Encoding.PEM, form))
    return made


class Authority:
    """Signs certificates of those who sign bundles; its own is `certificate`."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._made = _certificate(stem.name, self._key, None, self._key)
        self.certificate = stem.with_suffix(".crt")
        self.certificate.write_bytes(self._made.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """A new key, and its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(name, key, self._made, self._key)
        paths = self._stem.with_name(f"{name}.pem"), self._stem.with_name(f"{name}.crt")
        paths[0].write_bytes(_pem(key))
        paths[1].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return paths


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=issuer is not None,
                key_cert_sign=issuer is None,
                crl_sign=issuer is None,
                **usage,
            ),
            critical=True,
        )
        .sign(signer, hashes.SHA256())
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
