"""Why TLS was not agreed: what gRPC writes about it is read, and where that is nothing, asked for.

gRPC has one status for a connection that cannot be made, and a text. Where the server refuses the
client's certificate, or speaks TLS with a client that does not, that text is "Socket closed". Then
one handshake with Python's ssl shows more.
"""

from __future__ import annotations

import re
import socket
import time
from typing import TYPE_CHECKING

from convserve.address import endpoints
from convserve.deadline import Deadline
from convserve.errors import ConvserveError, ServerUnavailable, TlsFailed
from convserve.proxy import proxy_of

if TYPE_CHECKING:
    import ssl

    from convserve.tls import Tls

# Longest time for that handshake, and from one to the next of a client, s.
_LONGEST_S = 3.0
_AGAIN_S = 5.0

# What gRPC (BoringSSL) and Python (OpenSSL) write, and what it means.
_CAUSES = (
    ("certificate has expired", "expired"),
    ("certificate is not yet valid", "not-yet-valid"),
    ("Hostname Verification Check failed|Hostname mismatch|IP address mismatch", "wrong-host"),
    ("unable to get (local )?issuer certificate|self.signed certificate", "unknown-authority"),
    ("WRONG_VERSION_NUMBER|wrong version number|HTTP_REQUEST", "no-tls"),
    ("TSI_PROTOCOL_FAILURE|CERTIFICATE_VERIFY_FAILED|verification check failed", "other"),
)

_VAGUE = re.compile("Socket closed|Connection reset|Broken pipe|Endpoint closing")

_WORDS = {
    "expired": "the server's certificate has expired",
    "not-yet-valid": "the server's certificate is not valid yet: are both clocks right?",
    "wrong-host": "the server's certificate is not for {host}; tls_server_name or"
    " --tls-server-name gives the name that it is for",
    "unknown-authority": "the server's certificate is of an authority that is not trusted here;"
    " tls_ca or --tls-ca gives the file of the authority",
    "no-tls": "the server speaks no TLS there",
    "tls-required": "the server speaks TLS there; --tls, tls=True or its authority by tls_ca or"
    " --tls-ca asks for it",
    "certificate-required": "the server requires a certificate of the client; tls_cert and tls_key,"
    " or --tls-cert and --tls-key, give it",
    "certificate-refused": "the server does not accept the certificate in {cert}: it has expired,"
    " or is of an authority that the server does not trust",
}


class HandshakeFailed(ServerUnavailable):
    """A connection was closed before it could be used, and gRPC does not write why.

    Attributes:
        deadline: That of the call.
    """

    def __init__(self, unavailable: ConvserveError, deadline: Deadline) -> None:
        super().__init__(unavailable.message, code=unavailable.code)
        self.deadline = deadline


def cause_in(text: str) -> str | None:
    """Returns why TLS was not agreed, by the text of gRPC or of Python; None: it does not say."""
    return next((cause for words, cause in _CAUSES if re.search(words, text, re.IGNORECASE)), None)


def is_vague(text: str) -> bool:
    """Returns whether a text of gRPC may mean that TLS was not agreed."""
    return _VAGUE.search(text) is not None


def tls_error(server: str, cause: str, text: str, tls: Tls | None = None) -> TlsFailed:
    """Returns the error for a cause.

    Args:
        server: The address.
        cause: As TlsFailed.reason.
        text: Of gRPC or Python, for what has no words of ours.
        tls: Of the client.
    """
    name = tls.server_name if tls is not None else None
    hosts = ", ".join(host for host, _ in endpoints(server))
    words = _WORDS.get(cause, "TLS: {text}").format(
        host=name or hosts or server, cert=tls.cert if tls is not None else None, text=text
    )
    return TlsFailed(f"cannot connect to {server}: {words}", reason=cause)


class Diagnosis:
    """Finds out why a server closes connections; of one client."""

    def __init__(self, server: str, tls: Tls | None) -> None:
        """Asks nothing yet.

        Args:
            server: The address.
            tls: Of the client.
        """
        self._server = server
        self._tls = tls
        self._again_s = 0.0
        self._cause: str | None = None

    def explain(self, error: HandshakeFailed) -> ConvserveError:
        """Returns the error to raise in place of one; may take some seconds, and reads files."""
        left_s = error.deadline.left_s()
        if left_s > 0 and time.monotonic() >= self._again_s:
            self._cause = _probe(self._server, self._tls, min(left_s, _LONGEST_S))
            self._again_s = time.monotonic() + _AGAIN_S
        found: ConvserveError
        if self._cause is None:
            found = ServerUnavailable(error.message, code=error.code)
        else:
            found = tls_error(self._server, self._cause, error.message, self._tls)
            found.code = error.code
        found.__cause__ = error.__cause__
        return found


def _probe(server: str, tls: Tls | None, timeout_s: float) -> str | None:
    """Makes one handshake; returns why there can be none, or None."""
    import ssl

    where = endpoints(server)
    if not where or proxy_of(server) is not None:
        return None
    try:
        if tls is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        else:
            context = tls.context()
        # By TLS 1.3 a client's handshake ends before the server has looked at its certificate.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        name = (tls.server_name if tls is not None else None) or where[0][0]
        with socket.create_connection(where[0], timeout_s) as plain:
            secured = context.wrap_socket(
                plain, server_hostname=name, do_handshake_on_connect=False
            )
            with secured:
                return _handshake(secured, tls)
    except (OSError, ValueError, ConvserveError):
        return None


def _handshake(secured: ssl.SSLSocket, tls: Tls | None) -> str | None:
    import ssl

    try:
        secured.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return cause_in(error.verify_message) or "other"
    except TimeoutError:
        return None
    except OSError as error:
        # It has begun if both agreed on a cipher: then the server did not like what came next.
        if secured.cipher() is None:
            return cause_in(str(error)) if tls is not None else None
        if tls is None:
            return "tls-required"
        return "certificate-required" if tls.cert is None else "certificate-refused"
    return "tls-required" if tls is None else None
