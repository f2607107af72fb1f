"""The options for TLS and for the key of the caller, the same for all commands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from convserve.caller_key import KEY_FILE_VARIABLE, CallerKey
from convserve.settings import choose_key
from convserve.tls import (
    CA_VARIABLE,
    CERT_VARIABLE,
    KEY_VARIABLE,
    SERVER_NAME_VARIABLE,
    TLS_VARIABLE,
    Tls,
    choose_tls,
)

if TYPE_CHECKING:
    from convserve.client import Client

_TLS = ("tls", "tls_ca", "tls_cert", "tls_key", "tls_server_name")


def add_tls(group: argparse._ArgumentGroup) -> None:
    """Adds the options; the library looks at the variables of those that are not given."""
    group.add_argument(
        "--tls",
        action="store_const",
        const=True,
        help=f"speak TLS, as is done where one of the next three is given; [env: {TLS_VARIABLE}=1]",
    )
    for option, what, variable in (
        (
            "ca",
            "file with the authorities that sign servers' certificates (PEM) [default: those that"
            " this machine trusts]",
            CA_VARIABLE,
        ),
        ("cert", "file with the client's own certificate (PEM)", CERT_VARIABLE),
        ("key", "file with the private key of --tls-cert (PEM)", KEY_VARIABLE),
    ):
        group.add_argument(f"--tls-{option}", metavar="FILE", help=f"{what} [env: {variable}]")
    group.add_argument(
        "--tls-server-name",
        metavar="NAME",
        help="name that the server's certificate must have [default: the host in its address]"
        f" [env: {SERVER_NAME_VARIABLE}]",
    )
    group.add_argument(
        "--key-file",
        metavar="FILE",
        help="file with the key by which the server knows the caller; read again when it changes"
        f" [env: {KEY_FILE_VARIABLE}]",
    )


def tls_of(arguments: argparse.Namespace) -> Tls | None:
    """Returns how a command speaks TLS, also one without these options; None: it does not.

    Raises:
        InvalidRequest: See choose_tls.
    """
    return choose_tls(*(getattr(arguments, name, None) for name in _TLS))


def key_of(arguments: argparse.Namespace) -> CallerKey | None:
    """Returns the key that a command sends; None: it has none."""
    return choose_key(getattr(arguments, "key_file", None))


def connect(arguments: argparse.Namespace, **more: Any) -> Client:
    """Returns a client as the options have it.

    Args:
        arguments: Of the command.
        more: Further arguments of Client.

    Raises:
        InvalidRequest: See Client.
    """
    # Here, since a health check needs no NumPy.
    from convserve.client import Client

    given: dict[str, Any] = {name: getattr(arguments, name, None) for name in (*_TLS, "key_file")}
    return Client(arguments.server, timeout=arguments.timeout, **given, **more)
