"""Asks a Convserve server what digit a picture shows, with Python made from the .proto files.

python classify.py [PICTURE [ADDRESS [MODEL]]]
"""

import sys
from pathlib import Path

import grpc

from convserve_protos import classifier_pb2, classifier_pb2_grpc

SEVEN = Path(__file__).parent.parent / "seven.png"


def main(picture: str = str(SEVEN), address: str = "127.0.0.1:50051", model: str = "mnist") -> None:
    """Print the digit and how sure the model is of it."""
    request = classifier_pb2.ClassifyRequest(
        model=model,
        encoded=classifier_pb2.EncodedImages(images=[Path(picture).read_bytes()]),
        top_k=1,
    )
    with grpc.insecure_channel(address) as channel:
        stub = classifier_pb2_grpc.ClassifierStub(channel)
        try:
            response = stub.Classify(request, timeout=10)
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")
    prediction = response.results[0].prediction
    print(f"{response.labels[prediction.classes[0]]} {100 * prediction.probabilities[0]:.1f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
