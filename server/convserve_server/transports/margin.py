"""How much sooner than its deadline a call must be answered, so that the answer is there in time.

The core plans by the times that its engine takes. What else delays an answer is not known to it:
batches that others on the machine slow down, the way through the transport and the network. Under
overload calls are admitted that will just be in time, so a little more and all are late. The
margin is learnt from what is: it grows while more than a few of the calls that were admitted end
after their deadlines, and shrinks while none do.
"""

#: Shortest margin, s: what two programs on one machine need to exchange an answer.
_LEAST_S = 0.001
#: Of the time that a call has left, the largest part that the margin takes.
_MOST_SHARE = 0.1
#: Late answers, as a share of all, beyond which the margin grows. The fewest answers that tell.
_LATE_SHARE = 0.01
_FEWEST = 32
#: By what the margin is multiplied: after answers of which too many were late; after others.
_GROWTH, _SHRINKAGE = 1.5, 0.97


class AnswerMargin:
    """The margin of one transport.

    Any thread may note how a call ended. What one of them overwrites is a count that is too small
    by one, which changes nothing.
    """

    def __init__(self) -> None:
        #: s.
        self.seconds = _LEAST_S
        self._ended = 0
        self._late = 0
        #: When the margin was changed, time.monotonic(): calls that came before tell nothing of it.
        self._changed = 0.0

    def deadline(self, now: float, left_s: float) -> float:
        """Returns by when a call must be answered, time.monotonic().

        Args:
            now: time.monotonic().
            left_s: until its caller stops waiting.
        """
        seconds, most_s = self.seconds, _MOST_SHARE * left_s
        # min() takes longer than the rest of it.
        return now + left_s - (seconds if seconds < most_s else most_s)

    def note(self, arrived: float, deadline: float, now: float, *, gone: bool) -> None:
        """Learns from a call that was admitted and has ended.

        Args:
            arrived: time.monotonic() at which the call came.
            deadline: see deadline().
            now: time.monotonic().
            gone: there was nobody any more to take the answer.
        """
        if arrived < self._changed:
            return
        self._ended += 1
        if gone or now >= deadline + self.seconds:
            self._late += 1
        if self._ended < _FEWEST:
            return
        if self._late <= _LATE_SHARE * self._ended:
            self.seconds = max(_LEAST_S, _SHRINKAGE * self.seconds)
        elif self.seconds < _MOST_SHARE * (deadline - arrived):
            self.seconds *= _GROWTH
            self._changed = now
        self._ended = self._late = 0
