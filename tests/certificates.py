"""Certificates for tests: an authority of our own, and what it has signed."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme

#: Whom the certificates of clients name.
CLIENT = "client.test"


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, in files (PEM)."""

    cert: Path
    key: Path


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
        self._count += 1
        cert, key = (self._folder / f"{self.ca.stem}-{self._count}.{end}" for end in ("pem", "key"))
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(key))
        return Issued(cert, key)

    def client(self, name: str = CLIENT, days: float = 1) -> Issued:
        """Signs one of a client."""
        return self.issue(name, days=days)

    def server(self, *names: str, days: float = 1) -> Issued:
        """Signs one of a server, by default for this machine's own names."""
        return self.issue(*(names or ("localhost", "127.0.0.1", "::1")), days=days)
