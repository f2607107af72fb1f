"""The messages of StreamClassify."""

from convserve_protos import classifier_pb2 as pb
from convserve_server.protocols.base import Failure
from convserve_server.protocols.grpc_errors import failure_status


class ClassifyMessages:
    """See StreamMessages."""

    request_name = "convserve.v1.StreamClassifyRequest"
    in_order = False

    def request(self, payload: bytes) -> tuple[str, bytes]:
        """See StreamMessages.request."""
        message = pb.StreamClassifyRequest.FromString(payload)
        return message.request.id, message.request.SerializeToString()

    def answer(self, request_id: str, outcome: bytes | Failure) -> bytes:
        """See StreamMessages.answer."""
        response = pb.StreamClassifyResponse(id=request_id)
        if isinstance(outcome, Failure):
            response.error.CopyFrom(failure_status(outcome))
        else:
            response.response.ParseFromString(outcome)
        return response.SerializeToString()
