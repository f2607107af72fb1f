"""The messages of ModelStreamInfer."""

from convserve_protos import open_inference_pb2 as pb
from convserve_server.protocols.base import Failure


class InferMessages:
    """See StreamMessages. Answers come in order, as those of Triton's models do."""

    request_name = "inference.ModelInferRequest"
    in_order = True

    def request(self, payload: bytes) -> tuple[str, bytes]:
        """See StreamMessages.request."""
        return pb.ModelInferRequest.FromString(payload).id, payload

    def answer(self, request_id: str, outcome: bytes | Failure) -> bytes:
        """See StreamMessages.answer.

        The messages have no space for a status. The id beside an error says whose it is.
        """
        response = pb.ModelStreamInferResponse()
        if isinstance(outcome, Failure):
            response.error_message = outcome.message
            response.infer_response.id = request_id
        else:
            response.infer_response.ParseFromString(outcome)
        return response.SerializeToString()
