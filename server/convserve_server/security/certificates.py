"""What is wrong with a server's certificate: looked at when it starts, and while it runs."""

import datetime
import logging
import os
import ssl
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from convserve_server.security.file_watch import LOOK_S, FileWatch
from convserve_server.security.tls import TlsFiles, server_context

log = logging.getLogger(__name__)

#: A certificate that ends sooner is warned of: what renews it has failed, or there is nothing.
SOON_DAYS = 14.0
#: How often a server that runs says so, s.
AGAIN_S = 86_400.0

#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL, for which the ssl module has no name.
_NO_CHECK_TIME = 0x200000


@dataclass(frozen=True)
class Validity:
    """From when until when a certificate is valid."""

    begin: datetime.datetime
    end: datetime.datetime


def validity_of(files: TlsFiles) -> Validity:
    """Returns when the certificate of a server is valid.

    The ssl module describes only certificates that the other side of a connection has shown: so a
    client that trusts this one certificate connects here, in memory.

    Raises:
        ValueError: The files are not what they should be, or no client can accept the certificate.
        OSError: One cannot be read.
    """
    server = server_context(TlsFiles(cert=files.cert, key=files.key), ())
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(files.cert)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    try:
        for _ in range(3):  # Each side speaks twice at most.
            for side in sides:
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error.reason or error
        raise ValueError(
            f"tls_cert: expected a certificate that clients accept, got {files.cert}: {why}"
        ) from error
    shown = sides[0].getpeercert() or {}
    begin, end = (_time(str(shown[key])) for key in ("notBefore", "notAfter"))
    return Validity(begin, end)


def warnings_about(files: TlsFiles, now: datetime.datetime) -> list[str]:
    """Returns what an operator should mend soon; nothing for most certificates.

    Raises:
        ValueError, OSError: See validity_of.
    """
    found = []
    validity = validity_of(files)
    days = (validity.end - now).total_seconds() / 86_400
    until = f"{validity.end:%Y-%m-%d %H:%M} UTC"
    if days <= 0:
        found.append(f"tls_cert: {files.cert} has expired on {until}: clients refuse it")
    elif validity.begin > now:
        begin = f"{validity.begin:%Y-%m-%d %H:%M} UTC"
        found.append(f"tls_cert: {files.cert} is not valid before {begin}: clients refuse it")
    elif days < SOON_DAYS:
        found.append(f"tls_cert: {files.cert} expires in {days:.1f} days, on {until}: renew it")
    mode = stat.S_IMODE(os.stat(files.key).st_mode)
    if mode & stat.S_IROTH:
        found.append(
            f"tls_key: {files.key} can be read by every user of this machine (mode {mode:o}): "
            "chmod 600, or 640 with a group of its own"
        )
    return found


class CertificateWatch:
    """Warns of a server's certificate when its files have changed, and once a day."""

    def __init__(
        self, files: TlsFiles, clock: Callable[[], float] = time.monotonic, every_s: float = LOOK_S
    ) -> None:
        self._files = files
        self._clock = clock
        self._every_s = every_s
        self._due = clock() + AGAIN_S
        self._watch = FileWatch(files.paths, self._warn)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="certificates", daemon=True)

    def start(self) -> None:
        """Looks from now on; who starts it has just looked."""
        self._thread.start()

    def close(self) -> None:
        """Looks no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Looks once."""
        if self._watch.look():
            self._due = self._clock() + AGAIN_S
        elif self._clock() >= self._due:
            self._due = self._clock() + AGAIN_S
            try:
                self._warn()
            except (ValueError, OSError) as error:
                log.warning("%s", error)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.look()

    def _warn(self) -> None:
        for line in warnings_about(self._files, datetime.datetime.now(datetime.UTC)):
            log.warning(line)


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(text), datetime.UTC)
