"""Client of a Convserve server: pictures go in, labels and probabilities come out.

from convserve import Client

with Client("localhost:50051") as client:
    print(client.classify(digit).label)
"""

from convserve.async_client import AsyncClient
from convserve.client import Client
from convserve.errors import (
    Cancelled,
    ClientClosed,
    ConvserveError,
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    MessageTooLarge,
    ModelNotFound,
    NotSupported,
    PermissionDenied,
    ServerBusy,
    ServerFault,
    ServerUnavailable,
    Unauthenticated,
    UnexpectedReply,
)
from convserve.health import Health
from convserve.models import ModelInfo
from convserve.results import Classification, Guess, Result, Timings

__all__ = [
    "AsyncClient",
    "Cancelled",
    "Classification",
    "Client",
    "ClientClosed",
    "ConvserveError",
    "DeadlineExceeded",
    "FieldViolation",
    "Guess",
    "Health",
    "InvalidRequest",
    "MessageTooLarge",
    "ModelInfo",
    "ModelNotFound",
    "NotSupported",
    "PermissionDenied",
    "Result",
    "ServerBusy",
    "ServerFault",
    "ServerUnavailable",
    "Timings",
    "Unauthenticated",
    "UnexpectedReply",
]
