"""Client of a Convserve server: pictures go in, labels and probabilities come out.

from pathlib import Path

from convserve import Client

with Client("localhost:50051") as client:
    print(client.classify(digit).label)  # pixels, uint8 [28, 28]
    print(client.classify_images(Path("cat.jpg").read_bytes(), model="cats-dogs").label)
"""

from convserve.async_client import AsyncClient
from convserve.client import Client
from convserve.errors import (
    BadImage,
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
    "BadImage",
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
