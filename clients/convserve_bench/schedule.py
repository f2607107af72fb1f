"""When calls are due, and what kept them waiting.

A call counts from the moment at which it was due, not from the one at which it was sent: otherwise
a server that stalls would be asked less while it does, and its stall would count once and not for
every call that fell into it ("coordinated omission").

Source: G. Tene, "How NOT to Measure Latency"; wrk2.
"""

from __future__ import annotations

from collections.abc import Sequence

from convserve_bench.caller_group import CallerGroup


class Schedule:
    """Begins calls at equal distances, each with the next group that has a caller free.

    Attributes:
        sent: Calls that were begun.
        waited: Of these, such as had to wait for a caller.
        late: Of the others, such as were sent more than late_s late: the generator's own fault.
    """

    def __init__(
        self, rate: float, begin_s: float, counted_from_s: float, end_s: float, late_s: float
    ) -> None:
        """Makes the schedule.

        Args:
            rate: Calls each second.
            begin_s: When the first is due.
            counted_from_s: Calls due from then on are counted in the attributes.
            end_s: No call is due from then on.
            late_s: See Load.late_s.
        """
        self.sent = self.waited = self.late = 0
        self._rate = rate
        self._begin_s = begin_s
        self._counted_from_s = counted_from_s
        self._end_s = end_s
        self._late_s = late_s
        self._number = 0
        self._all_busy_s = begin_s
        self._lane = 0
        self.next_s = begin_s

    def send(self, now_s: float, groups: Sequence[CallerGroup]) -> None:
        """Begins what is due, as far as there are callers."""
        while self.next_s <= now_s and self.next_s < self._end_s:
            group = self._free(groups)
            if group is None:
                self._all_busy_s = now_s
                return
            count = 0
            free = group.free
            starts = []
            # Behind schedule, the groups share what is due, so that each sends once.
            share = 1 + int((now_s - self.next_s) * self._rate) // len(groups)
            while count < min(free, share) and self.next_s <= now_s and self.next_s < self._end_s:
                starts.append(self._take(now_s))
                count += 1
            group.begin(now_s, starts)

    def unsent(self, now_s: float) -> int:
        """Returns how many calls were due by now, or by the end, and were not begun."""
        last_s = min(now_s, self._end_s)
        return max(0, int((last_s - self._begin_s) * self._rate) - self._number)

    def _take(self, now_s: float) -> float:
        due_s = self.next_s
        if due_s >= self._counted_from_s:
            self.sent += 1
            if due_s <= self._all_busy_s:
                self.waited += 1
            elif now_s - due_s > self._late_s:
                self.late += 1
        self._number += 1
        self.next_s = self._begin_s + self._number / self._rate
        return due_s

    def _free(self, groups: Sequence[CallerGroup]) -> CallerGroup | None:
        for _ in groups:
            self._lane = (self._lane + 1) % len(groups)
            if groups[self._lane].free > 0:
                return groups[self._lane]
        return None
