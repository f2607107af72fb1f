"""The events of the core and of the router, for whoever counts or traces them.

A consumer subclasses Observer and overrides the events that it wants. It is called on the threads
that serve, some of them with a lock held: it must not block, raise, or call back into the core.
"""

from collections.abc import Mapping, Sequence

from convserve_bundle.stability import Known


class Observer:
    """Does nothing with any event: what there is where nobody wants to know."""

    def loaded(self, model: str) -> None:
        """A model version is loaded, and may be served from now on.

        Args:
            model: as "NAME/VERSION".
        """

    def expects(self, model: str, known: Mapping[str, Known]) -> None:
        """A model version that is loaded states what the pictures of its training are like.

        Args:
            model: as "NAME/VERSION".
            known: by the names of the measures; see stability.MEASURES.
        """

    def sampled(self, model: str, values: Mapping[str, float], now: float) -> None:
        """An image that a version was asked about was looked at.

        Args:
            model: as "NAME/VERSION".
            values: what it is like, by the names of the measures.
            now: time.monotonic().
        """

    def queued(self, model: str, images: int) -> None:
        """Images of one call were accepted into the queue of a model version.

        Args:
            model: as "NAME/VERSION".
            images: of the call.
        """

    def refused(self, method: str, reason: str) -> None:
        """A call was refused before anything was computed; finished() follows.

        What ends a call later, as a file that is not a picture, or a deadline, is in finished().

        Args:
            method: its path, as "/package.Service/Method"; as the caller gave it.
            reason: see ServeError.reason.
        """

    def connection_refused(self) -> None:
        """A client was not let in: there are too many, or it did not come to speak TLS."""

    def expired(self, stage: str, images: int) -> None:
        """A call left a queue: its deadline passed there, or would have before its answer.

        Args:
            stage: "decode" or "batch".
            images: of the call.
        """

    def batch(
        self,
        model: str,
        images: int,
        seconds: float,
        arrived: Sequence[float],
        whole_s: float,
        ended: float,
        /,
    ) -> None:
        """The engine of a model version has run a batch; requests are answered after this.

        Args:
            model: as "NAME/VERSION".
            images: in the batch.
            seconds: that it took.
            arrived: when each request came to wait for the engine that was in this batch alone,
                and is answered; time.monotonic(). They waited until ended - seconds.
            whole_s: that these were in the core, decoding included, their sum.
            ended: time.monotonic().
        """

    def joined(self, model: str, queue_s: float, compute_s: float, whole_s: float) -> None:
        """A request that was in several batches is answered after this.

        Args:
            model: as "NAME/VERSION".
            queue_s: that it waited for the engine, until the last of them.
            compute_s: in the engine, over all of them.
            whole_s: that it was in the core, decoding included.
        """

    def turned_away(self, model: str, requests: int) -> None:
        """Requests were refused before they were parsed, since this was last called.

        Called with the next batch, since they are many; for each of them there is also refused().

        Args:
            model: one of which a version was asked for, as "NAME/VERSION".
            requests: how many.
        """

    def failed(self, model: str, reason: str, seconds: float) -> None:
        """A request for a model version ends in an error after this; not if its caller has gone.

        Args:
            model: as "NAME/VERSION".
            reason: see ServeError.reason.
            seconds: that it was in the core; 0 if it was refused at once.
        """

    def decoded(self, model: str, images: int, wait_s: float, decode_s: float) -> None:
        """The files of one call are pixels, or known not to be.

        Args:
            model: that is to have them, as "NAME/VERSION".
            images: files of the call.
            wait_s: from their arrival to the start of the first one.
            decode_s: from there to the end of the last one.
        """

    def finished(self, method: str, model: str, code: int, reason: str, seconds: float, /) -> None:
        """A call is over: answered, or its caller has gone away. Called once for every call.

        A stream is a call, and so is each request on it.

        Args:
            method: its path, as "/package.Service/Method"; as the caller gave it.
            model: the version that was to answer, as "NAME/VERSION"; empty for none.
            code: of its status, as of google/rpc/code.proto; 0 for a result.
            reason: see ServeError.reason; empty for a result, and where there is none.
            seconds: from its arrival.
        """

    def answered(self, method: str, model: str, seconds: Sequence[float], /) -> None:
        """Calls that are alike have ended with a result: finished() for each, or this in its place.

        Args:
            method: see finished().
            model: see finished().
            seconds: of each call, from its arrival.
        """
        for one in seconds:
            self.finished(method, model, 0, "", one)

    def refused_together(self, method: str, model: str, code: int, reason: str, calls: int) -> None:
        """Many calls were refused, at once and alike; in place of refused() and finished() of each.

        Args:
            method: its path, as "/package.Service/Method".
            model: a version that was asked for, as "NAME/VERSION".
            code: of their status, as of google/rpc/code.proto.
            reason: see ServeError.reason.
            calls: how many.
        """
        for _ in range(calls):
            self.refused(method, reason)
            self.finished(method, model, code, reason, 0.0)


class Observers(Observer):
    """Hands each event to several observers, in their order.

    Args:
        observers: at least one.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def loaded(self, model: str) -> None:
        """See Observer.loaded."""
        for one in self._observers:
            one.loaded(model)

    def expects(self, model: str, known: Mapping[str, Known]) -> None:
        """See Observer.expects."""
        for one in self._observers:
            one.expects(model, known)

    def sampled(self, model: str, values: Mapping[str, float], now: float) -> None:
        """See Observer.sampled."""
        for one in self._observers:
            one.sampled(model, values, now)

    def queued(self, model: str, images: int) -> None:
        """See Observer.queued."""
        for one in self._observers:
            one.queued(model, images)

    def refused(self, method: str, reason: str) -> None:
        """See Observer.refused."""
        for one in self._observers:
            one.refused(method, reason)

    def connection_refused(self) -> None:
        """See Observer.connection_refused."""
        for one in self._observers:
            one.connection_refused()

    def expired(self, stage: str, images: int) -> None:
        """See Observer.expired."""
        for one in self._observers:
            one.expired(stage, images)

    def batch(
        self,
        model: str,
        images: int,
        seconds: float,
        arrived: Sequence[float],
        whole_s: float,
        ended: float,
        /,
    ) -> None:
        """See Observer.batch."""
        for one in self._observers:
            one.batch(model, images, seconds, arrived, whole_s, ended)

    def joined(self, model: str, queue_s: float, compute_s: float, whole_s: float) -> None:
        """See Observer.joined."""
        for one in self._observers:
            one.joined(model, queue_s, compute_s, whole_s)

    def turned_away(self, model: str, requests: int) -> None:
        """See Observer.turned_away."""
        for one in self._observers:
            one.turned_away(model, requests)

    def failed(self, model: str, reason: str, seconds: float) -> None:
        """See Observer.failed."""
        for one in self._observers:
            one.failed(model, reason, seconds)

    def decoded(self, model: str, images: int, wait_s: float, decode_s: float) -> None:
        """See Observer.decoded."""
        for one in self._observers:
            one.decoded(model, images, wait_s, decode_s)

    def finished(self, method: str, model: str, code: int, reason: str, seconds: float, /) -> None:
        """See Observer.finished."""
        for one in self._observers:
            one.finished(method, model, code, reason, seconds)

    def answered(self, method: str, model: str, seconds: Sequence[float], /) -> None:
        """See Observer.answered."""
        for one in self._observers:
            one.answered(method, model, seconds)

    def refused_together(self, method: str, model: str, code: int, reason: str, calls: int) -> None:
        """See Observer.refused_together."""
        for one in self._observers:
            one.refused_together(method, model, code, reason, calls)


#: For all who have none.
NO_OBSERVER = Observer()
