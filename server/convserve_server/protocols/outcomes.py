"""From what became of a call in the core to its answer."""

from collections.abc import Callable

from convserve_server.core.batch_request import Answer, Outcome
from convserve_server.core.errors import InternalFault, NoModel, ServeError
from convserve_server.protocols.base import Call, reply_all
from convserve_server.protocols.grpc_errors import to_failure


def answer_call(call: Call, outcome: Outcome, serialize: Callable[[Answer], bytes]) -> None:
    """Answers a call; never raises.

    Args:
        call: to be answered.
        outcome: of its work.
        serialize: returns the response; may raise a ServeError.
    """
    try:
        if isinstance(outcome, Answer):
            payload = serialize(outcome)
        else:
            if isinstance(outcome, NoModel) and call.access is not None:
                outcome = outcome.seen_by(call.access.sees)
            call.fail(to_failure(outcome))
            return
    except ServeError as error:
        call.fail(to_failure(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's answer
        call.fail(to_failure(InternalFault("building the response", error, call.request_id())))
    else:
        if outcome.outbox is None:
            call.reply(payload)
        else:
            outcome.outbox.put(reply_all, (call, payload))


def damaged_rows() -> InternalFault:
    """Returns the error of rows that are not finite, which the log has too."""
    cause = ArithmeticError("probabilities: expected finite numbers, got others")
    return InternalFault("running the model", cause)
