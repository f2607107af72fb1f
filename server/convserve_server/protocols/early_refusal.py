"""Calls that would be refused in any case are refused before they are parsed."""

from collections.abc import Callable

from convserve_server.core.classifier import Classifier
from convserve_server.core.errors import QueueFull
from convserve_server.core.jobs import Priority
from convserve_server.protocols.base import Call

#: After a call was refused because there was no space or no time, s.
_WARY_S = 1.0


class EarlyRefusal:
    """Wraps the handler of a method that runs models.

    Args:
        classifier: the core.
        named_model: returns the model that the bytes of a request name, without parsing them; None
            if that cannot be seen.
        priority: returns the most urgent priority that a call may have, as far as its header fields
            say; None: that of the model.
        submit: parses a call and submits it to the core.
    """

    def __init__(
        self,
        classifier: Classifier,
        named_model: Callable[[bytes], str | None],
        priority: Callable[[Call], Priority | None],
        submit: Callable[[Call], None],
    ) -> None:
        self._classifier = classifier
        self._named_model = named_model
        self._priority = priority
        self._submit = submit
        # Until then each call is asked about before it is parsed: others were refused just now.
        self._wary_until = 0.0

    def __call__(self, call: Call) -> None:
        """Submits a call, or refuses it.

        Raises:
            ServeError: see Classifier.submit.
        """
        if call.arrived < self._wary_until:
            self._refuse_early(call)
        try:
            self._submit(call)
        except QueueFull:
            self._wary_until = call.arrived + _WARY_S
            raise

    def _refuse_early(self, call: Call) -> None:
        """Refuses a call that would be refused in any case, before it is parsed.

        Raises:
            QueueFull: see there.
        """
        refusal = self.refusal(
            call.payload, call.connection, call.deadline, call.arrived, self._priority(call)
        )
        if refusal is not None:
            call.model, error = refusal
            raise error

    def refusal(
        self,
        payload: bytes,
        connection: str,
        deadline: float | None,
        now: float,
        priority: Priority | None = None,
    ) -> tuple[str, QueueFull] | None:
        """See EarlyRefuser.refusal."""
        if now >= self._wary_until or (model := self._named_model(payload)) is None:
            return None
        refusal = self._classifier.refusal(model, connection, priority, deadline, now)
        if refusal is not None:
            self._wary_until = now + _WARY_S
        return refusal
