"""Certificates for tests: an authority of our own, and what it has signed."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

#: Whom the certificates of clients name.
CLIENT = "client.test"


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, in files (PEM)."""

    cert: Path
    key: Path

    def replace(self, other: "Issued") -> None:
        """Puts another one in its place, each file by a rename, as when it is renewed."""
        for mine, its in ((self.cert, other.cert), (self.key, other.key)):
            its.rename(mine)


class Authority:
    """Signs certificates; its own is in `ca`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self._count = 0
        self.ca = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.ca))

    def issue(self, *names: str, days: float = 1, common_name: str | None = None) -> Issued:
        """Signs one for host names, addresses or email addresses; `days` may be in the past."""
        now = datetime.datetime.now(datetime.UTC)
        leaf = self._ca.issue_cert(
            *names,
            common_name=common_name,
            not_before=now - datetime.timedelta(days=10),
            not_after=now + datetime.timedelta(days=days),
        )
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return self._write(chain, leaf.private_key_pem.bytes())

    def issue_uri(self, uri: str, *names: str, servers: bool = True) -> Issued:
        """Signs one for a URI, as SPIFFE has them, and host names behind it; trustme has none.

        Args:
            uri: Comes first.
            names: Come behind it.
            servers: Whether servers may have it, beside clients.
        """
        now = datetime.datetime.now(datetime.UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        ca = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        ca_key = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
        uses = [
            ExtendedKeyUsageOID.CLIENT_AUTH,
            *([ExtendedKeyUsageOID.SERVER_AUTH] if servers else []),
        ]
        others = [x509.UniformResourceIdentifier(uri), *map(x509.DNSName, names)]
        cert = (
            x509.CertificateBuilder(ca.subject, x509.Name([]), key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(others), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._write(cert.public_bytes(pem), private)

    def client(self, name: str = CLIENT, days: float = 1) -> Issued:
        """Signs one of a client."""
        return self.issue(name, days=days)

    def server(self, *names: str, days: float = 1) -> Issued:
        """Signs one of a server, by default for this machine's own names."""
        return self.issue(*(names or ("localhost", "127.0.0.1", "::1")), days=days)

    def _write(self, chain: bytes, private: bytes) -> Issued:
        self._count += 1
        cert, key = (self._folder / f"{self.ca.stem}-{self._count}.{end}" for end in ("pem", "key"))
        cert.write_bytes(chain)
        key.write_bytes(private)
        key.chmod(0o600)
        return Issued(cert, key)
