"""Client of a Convserve server: pictures go in, labels and probabilities come out.

from pathlib import Path

from convserve import Client

with Client("localhost:50051") as client:
    print(client.classify(digit).label)  # pixels, uint8 [28, 28]
    print(client.classify_images(Path("cat.jpg").read_bytes(), model="cats-dogs").label)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Half of gRPC's support of forks is on by default, and harms calls that are in flight: forks.py.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

if TYPE_CHECKING:
    from convserve.async_client import AsyncClient
    from convserve.client import Client
    from convserve.errors import (
        BadImage,
        Cancelled,
        CannotMeetDeadline,
        ClientClosed,
        ConvserveError,
        DeadlineExceeded,
        FieldViolation,
        ForkedProcess,
        InvalidRequest,
        MessageTooLarge,
        ModelNotFound,
        NotSupported,
        OtherEventLoop,
        PermissionDenied,
        ServerBusy,
        ServerFault,
        ServerUnavailable,
        TlsFailed,
        Unauthenticated,
        UnexpectedReply,
    )
    from convserve.health import Health
    from convserve.models import ModelInfo, RefusedVersion
    from convserve.results import Classification, ClassScore, Result, Timings

__all__ = [
    "AsyncClient",
    "BadImage",
    "Cancelled",
    "CannotMeetDeadline",
    "ClassScore",
    "Classification",
    "Client",
    "ClientClosed",
    "ConvserveError",
    "DeadlineExceeded",
    "FieldViolation",
    "ForkedProcess",
    "Health",
    "InvalidRequest",
    "MessageTooLarge",
    "ModelInfo",
    "ModelNotFound",
    "NotSupported",
    "OtherEventLoop",
    "PermissionDenied",
    "RefusedVersion",
    "Result",
    "ServerBusy",
    "ServerFault",
    "ServerUnavailable",
    "Timings",
    "TlsFailed",
    "Unauthenticated",
    "UnexpectedReply",
]

# What is imported when it is first asked for, from where: `from convserve import Client` brings no
# asyncio client, and the command `convserve health` brings no NumPy.
_HOMES = {
    "AsyncClient": "async_client",
    "BadImage": "errors",
    "Cancelled": "errors",
    "CannotMeetDeadline": "errors",
    "ClassScore": "results",
    "Classification": "results",
    "Client": "client",
    "ClientClosed": "errors",
    "ConvserveError": "errors",
    "DeadlineExceeded": "errors",
    "FieldViolation": "errors",
    "ForkedProcess": "errors",
    "Health": "health",
    "InvalidRequest": "errors",
    "MessageTooLarge": "errors",
    "ModelInfo": "models",
    "RefusedVersion": "models",
    "ModelNotFound": "errors",
    "NotSupported": "errors",
    "OtherEventLoop": "errors",
    "PermissionDenied": "errors",
    "Result": "results",
    "ServerBusy": "errors",
    "ServerFault": "errors",
    "ServerUnavailable": "errors",
    "Timings": "results",
    "TlsFailed": "errors",
    "Unauthenticated": "errors",
    "UnexpectedReply": "errors",
}


# Hidden from type checkers, which would accept any name, misspelt ones too.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Imports a public name when it is first asked for (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Returns the public names, also those that were not asked for yet."""
    return sorted({*globals(), *__all__})
