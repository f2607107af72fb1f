"""Connections get equal shares of what is served, by its cost; what does not fit is refused."""

import math
from collections.abc import Sequence
from random import Random

import pytest

from convserve_server.core.errors import ServeError
from convserve_server.core.fair_queue import FairQueue
from convserve_server.core.jobs import Job, JobState, Priority

NOW = 1000.0


class Item(Job[None]):
    """A job of parts with given costs."""

    def __init__(
        self,
        name: str,
        *costs: float,
        connection: str = "",
        deadline: float | None = None,
        size: int = 0,
        priority: Priority = Priority.INTERACTIVE,
        key: str | None = None,
    ) -> None:
        super().__init__(len(costs), size, deadline, self._keep, connection or name, priority)
        self.key = key
        self.name = name
        self.costs = costs
        self.outcomes: list[None | ServeError] = []

    def cost(self, first: int, count: int) -> float:
        return sum(self.costs[first : first + count])

    def _keep(self, outcome: None | ServeError) -> None:
        self.outcomes.append(outcome)


def queue_of(*items: Item, **limits: float) -> FairQueue[Item]:
    queue: FairQueue[Item] = FairQueue(**{"max_waiting": 1000, **limits})  # type: ignore[arg-type]
    for item in items:
        queue.append(item)
    return queue


def order(queue: FairQueue[Item], most: int = 1) -> list[str]:
    """Returns the names of the items in the order in which they leave the queue, most at a time."""
    names = []
    while queue.waiting:
        _, taken = queue.take(most, NOW)
        names += [item.name for item, _ in taken]
    return names


def test_connections_take_turns_where_all_costs_the_same() -> None:
    queue = queue_of(
        *[Item(name, 1.0, connection=name[0]) for name in ("a1", "a2", "a3", "b1", "c1", "c2")]
    )
    assert order(queue) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert not queue


def test_many_cheap_parts_pass_an_expensive_one() -> None:
    cheap = [Item(str(number), 1.0, connection="cheap") for number in range(20)]
    names = order(queue_of(Item("expensive", 10.0), *cheap))
    assert names.index("expensive") in (9, 10)
    assert len(names) == 21


def test_new_connections_with_expensive_jobs_do_not_pass_those_who_wait() -> None:
    queue = queue_of(Item("0", 1.0, connection="cheap"))
    names = []
    for number in range(1, 30):
        queue.append(Item(f"new {number}", 100.0))
        queue.append(Item(str(number), 1.0, connection="cheap"))
        _, [(item, _)] = queue.take(1, NOW)
        names.append(item.name)
    assert names == [str(number) for number in range(29)]


def test_job_of_several_parts_is_taken_part_by_part() -> None:
    many = Item("many", 1.0, 1.0)
    queue = queue_of(many, Item("one", 1.0))
    assert queue.take(1, NOW) == ([], [(many, 0)])
    states = [many.state]
    assert many.taken == 1
    assert order(queue) == ["one", "many"]
    states.append(many.state)
    assert states == [JobState.WAITING, JobState.RUNNING]


def test_share_of_a_take_is_in_one_piece_and_what_is_left_over_goes_round() -> None:
    much, little = Item("much", *[1.0] * 9), Item("little", 1.0)
    queue = queue_of(much, little)
    assert queue.take(6, NOW) == ([], [(much, 0), (little, 0)])
    assert much.taken == 5
    assert queue.waiting == 4


def test_finished_job_costs_its_connection_nothing() -> None:
    gone = Item("a1", 10.0, connection="a")
    queue = queue_of(gone, Item("a2", 2.0, connection="a"), Item("b", 11.0))
    assert queue.finish(gone)
    assert order(queue) == ["a2", "b"]


def test_job_is_finished_once() -> None:
    item = Item("a", 1.0, 1.0)
    queue = queue_of(item)
    assert queue.finish(item)
    assert not queue.finish(item)
    assert queue.waiting == 0
    assert item.state is JobState.FINISHED


def test_job_whose_deadline_has_passed_is_returned_and_not_served() -> None:
    late, good = Item("late", 1.0, 1.0, deadline=NOW), Item("good", 1.0, deadline=NOW + 1)
    queue = queue_of(late, good)
    assert queue.take(4, NOW) == ([late], [(good, 0)])
    assert late.state is JobState.FINISHED
    assert queue.waiting == 0


def refusals(queue: FairQueue[Item], items: Sequence[Item]) -> list[bool]:
    return [bool(queue.refusal(item)) for item in items]


def test_more_parts_than_may_wait_are_refused_unless_nothing_waits() -> None:
    large, small = Item("large", *[1.0] * 9), Item("small", 1.0)
    queue = queue_of(max_waiting=4)
    assert refusals(queue, [large, small]) == [False, False]
    queue.append(Item("first", 1.0, 1.0, 1.0))
    assert refusals(queue, [large, small]) == [True, False]
    assert queue.refusal(small, ahead=1) == "4 images wait, 1 more exceed the limit of 4"
    assert queue.refusal(small, max_waiting=3) == "3 images wait, 1 more exceed the limit of 3"


def test_bytes_count_until_a_job_is_finished() -> None:
    first = Item("first", 1.0, size=60)
    queue = queue_of(first, max_bytes=100)
    other = Item("other", 1.0, size=50)
    queue.take(1, NOW)
    assert queue.refusal(other) == "60 bytes wait, 50 more exceed the limit of 100"
    queue.finish(first)
    assert queue.refusal(other) == ""


def test_cost_beyond_the_limit_is_refused_to_those_who_have_their_share() -> None:
    queue = queue_of(Item("a", 8.0), max_cost=10.0)
    assert queue.refusal(Item("a2", 3.0, connection="a"))
    assert queue.refusal(Item("b", 3.0)) == ""
    assert queue.refusal(Item("b", 6.0))


@pytest.mark.parametrize("max_cost", [10.0, math.inf])
def test_taken_parts_wait_no_more(max_cost: float) -> None:
    queue = queue_of(Item("a", 1.0, 2.0), max_cost=max_cost)
    queue.take(1, NOW)
    assert queue.waiting == 1
    queue.take(1, NOW)
    assert (queue.waiting, queue.cost) == (0, 0.0)


def test_no_cost_is_counted_without_a_limit_for_it() -> None:
    queue = queue_of(Item("a", 5.0), max_cost=math.inf)
    assert queue.cost == 0.0


def batch_item(name: str, *costs: float, connection: str = "") -> Item:
    return Item(name, *costs, connection=connection, priority=Priority.BATCH)


def test_batch_jobs_come_after_all_interactive_ones_but_for_their_share() -> None:
    items = [
        *(batch_item(f"b{n}", 1.0, connection="x") for n in range(4)),
        *(Item(f"i{n}", 1.0, connection="x") for n in range(9)),
    ]
    names = order(queue_of(*items, batch_share=0.25))
    assert names == ["i0", "i1", "i2", "b0", "i3", "i4", "i5", "b1", "i6", "i7", "i8", "b2", "b3"]


@pytest.mark.parametrize(("share", "first"), [(0.0, "iiiiiiiiii"), (1.0, "ibbbbbbbbb")])
def test_share_of_none_and_of_all(share: float, first: str) -> None:
    items = [Item("i", 1.0, connection=str(n)) for n in range(20)]
    items += [batch_item("b", 1.0, connection=str(n)) for n in range(20)]
    assert "".join(order(queue_of(*items, batch_share=share)))[:10] == first


def test_share_is_of_what_is_served_not_of_parts() -> None:
    items = [Item("i", 1.0, connection="x") for _ in range(40)]
    items += [batch_item("b", 5.0, connection="x") for _ in range(5)]
    names = order(queue_of(*items, batch_share=0.5, max_cost=1000.0))
    assert 4 <= names[:24].count("b") <= 5
    assert names.index("b") >= 4


def test_what_interactive_jobs_left_is_not_owed_again() -> None:
    queue = queue_of(*[batch_item(f"b{n}", 1.0, connection="x") for n in range(40)])
    for number in range(5):
        queue.append(Item(f"i{number}", 1.0, connection="y"))
        _, taken = queue.take(4, NOW)
        assert [item.name[0] for item, _ in taken] == ["i", "b", "b", "b"]
    for number in range(9):
        queue.append(Item(f"late {number}", 1.0, connection="y"))
    _, taken = queue.take(9, NOW)
    assert [item.name[0] for item, _ in taken].count("l") >= 8


def test_connections_of_a_class_take_turns_whatever_the_other_class_sends() -> None:
    items = [batch_item(name, 1.0, connection=name[0]) for name in ("a1", "a2", "a3", "c1")]
    items += [Item(name, 1.0, connection=name[0]) for name in ("a4", "a5", "d1")]
    names = order(queue_of(*items, batch_share=0.0))
    assert names == ["a4", "d1", "a5", "a1", "c1", "a2", "a3"]


def test_dropped_job_costs_its_connection_no_turn() -> None:
    late = [Item(f"a{n}", 1.0, connection="a", deadline=NOW) for n in range(5)]
    good = Item("a", 1.0, connection="a", deadline=NOW + 1)
    others = [Item(f"b{n}", 1.0, connection="b") for n in range(5)]
    dropped, taken = queue_of(*late, good, *others).take(2, NOW)
    assert dropped == late
    assert [item.name for item, _ in taken] == ["a", "b0"]


def test_job_that_would_be_late_with_the_whole_batch_gives_its_slot_to_another() -> None:
    tight = Item("tight", 1.0, deadline=NOW + 3)
    others = [Item(str(n), 1.0, deadline=NOW + 9) for n in range(8)]
    dropped, taken = queue_of(tight, *others).take(4, NOW, float)
    assert dropped == [tight]
    assert [item.name for item, _ in taken] == ["0", "1", "2", "3"]


def test_jobs_that_all_have_time_only_for_a_small_batch_make_one() -> None:
    items = [Item(str(n), 1.0, deadline=NOW + 2.5) for n in range(8)]
    dropped, taken = queue_of(*items).take(4, NOW, float)
    assert [item.name for item, _ in taken] == ["0", "1"]
    assert {item.state for item, _ in taken} == {JobState.RUNNING}
    assert all(item.state is JobState.FINISHED for item in dropped)
    assert len(dropped) == 6


def test_job_of_several_batches_is_dropped_when_the_rest_cannot_be_done() -> None:
    large = Item("large", *[1.0] * 10, deadline=NOW + 9)
    assert queue_of(large).take(4, NOW, float)[0] == [large]
    begun = Item("begun", *[1.0] * 10, deadline=NOW + 11)
    queue = queue_of(begun)
    assert queue.take(4, NOW, float) == ([], [(begun, 0)])
    assert queue.take(4, NOW + 6, float) == ([begun], [])


def test_job_that_has_not_begun_in_its_time_is_dropped_and_one_that_has_goes_on() -> None:
    slow, begun = Item("slow", 1.0), Item("begun", 1.0, 1.0)
    slow.start_by = begun.start_by = NOW
    queue = queue_of(begun)
    assert queue.take(1, NOW - 1) == ([], [(begun, 0)])
    queue.append(slow)
    dropped, taken = queue.take(2, NOW)
    assert (dropped, [item for item, _ in taken]) == ([slow], [begun])


@pytest.mark.parametrize(
    ("connection", "count", "ahead"), [("a", 1, 14), ("b", 1, 7), ("new", 1, 2), ("new", 4, 8)]
)
def test_what_is_ahead_is_no_more_than_fair_shares_allow(
    connection: str, count: int, ahead: int
) -> None:
    queue = queue_of(Item("a", *[1.0] * 11), Item("b", *[1.0] * 3))
    assert queue.ahead(connection, Priority.INTERACTIVE, count) == ahead


# Keys


def batches(queue: FairQueue[Item], most: int) -> list[str]:
    """Returns the names of the items that leave together, with the index of the first part."""
    found = []
    while queue.waiting:
        _, taken = queue.take(most, NOW)
        assert len({item.key for item, _ in taken}) == 1
        found.append(" ".join(f"{item.name}{at or ''}" for item, at in taken))
    return found


def test_what_leaves_together_has_one_key_and_the_others_keep_their_turns() -> None:
    a, b, c, d = (Item(name, 1.0, key=key) for name, key in zip("abcd", "xyxy", strict=True))
    queue = queue_of(a, b, c, d, keyed=True)
    assert batches(queue, 8) == ["a c", "b d"]
    assert not queue


def test_jobs_of_one_connection_pass_those_with_other_keys_and_nobody_starves() -> None:
    """However many more come, the first of those that were passed decides the next batch."""
    queue = queue_of(Item("x0", 1.0, connection="c", key="x"), keyed=True)
    queue.append(Item("y", 1.0, connection="c", key="y"))
    left = []
    for number in range(1, 6):
        queue.append(Item(f"x{number}", 1.0, connection="c", key="x"))
        _, taken = queue.take(2, NOW)
        left.append([item.name for item, _ in taken])
    assert left == [["x0", "x1"], ["y"], ["x2", "x3"], ["x4"], ["x5"]]


def test_job_that_would_be_cut_passes_none() -> None:
    queue = queue_of(
        Item("x", 1.0, connection="c", key="x"),
        Item("y", 1.0, connection="c", key="y"),
        Item("long", 1.0, 1.0, 1.0, connection="c", key="x"),
        keyed=True,
    )
    assert batches(queue, 2) == ["x", "y", "long", "long2"]


def test_job_with_parts_left_goes_on_with_others_of_its_key() -> None:
    queue = queue_of(
        Item("long", 1.0, 1.0, 1.0, connection="c", key="x"),
        Item("other", 1.0, connection="d", key="y"),
        Item("more", 1.0, connection="e", key="x"),
        keyed=True,
    )
    assert batches(queue, 3) == ["long more", "other", "long2"]


def test_classes_share_by_key_as_well() -> None:
    queue = queue_of(
        Item("i", 1.0, key="x"),
        Item("b", 1.0, key="y", priority=Priority.BATCH),
        Item("c", 1.0, key="x", priority=Priority.BATCH),
        keyed=True,
    )
    assert batches(queue, 4) == ["i c", "b"]


def test_deadlines_are_compared_with_what_has_the_same_key() -> None:
    """A batch of all that waits would be too late for the first, one of its key is not."""
    hurried = Item("hurried", 1.0, deadline=NOW + 1.5, key="x")
    others = [Item(name, 1.0, key="y") for name in "abc"]
    queue = queue_of(hurried, *others, keyed=True)
    dropped, taken = queue.take(8, NOW, float)
    assert (dropped, [item.name for item, _ in taken]) == ([], ["hurried"])


def test_finished_and_expired_jobs_decide_no_key() -> None:
    gone, late = Item("gone", 1.0, key="x"), Item("late", 1.0, key="y", deadline=NOW - 1)
    queue = queue_of(gone, late, Item("a", 1.0, key="z"), Item("b", 1.0, key="z"), keyed=True)
    assert queue.finish(gone)
    dropped, taken = queue.take(8, NOW)
    assert [item.name for item in dropped] == ["late"]
    assert [item.name for item, _ in taken] == ["a", "b"]
    assert not queue.waiting


@pytest.mark.parametrize("seed", range(20))
def test_every_job_leaves_once_and_whole_whatever_comes_between(seed: int) -> None:
    """Jobs of any size, key, class and connection; some end or expire while they wait."""
    random = Random(seed)
    queue = queue_of(keyed=True)
    parts: dict[str, list[int]] = {}
    waiting: list[Item] = []
    ended: set[str] = set()
    for number in range(300):
        item = Item(
            str(number), *[1.0] * random.choice((1, 1, 1, 2, 7)),
            connection=random.choice("abc"),
            deadline=random.choice((None, None, NOW - 1, NOW + 3)),
            priority=random.choice((Priority.INTERACTIVE, Priority.BATCH)),
            key=random.choice("xyz"),
        )  # fmt: skip
        queue.append(item)
        waiting.append(item)
        if random.random() < 0.1:
            gone = random.choice(waiting)
            if queue.finish(gone):
                ended.add(gone.name)
        while random.random() < 0.3 or (number == 299 and queue.waiting):
            before = {item: item.taken for item in waiting}
            dropped, taken = queue.take(4, NOW, lambda count: count / 4)
            assert len({item.key for item, _ in taken}) <= 1
            assert sum(item.taken - at for item, at in taken) <= 4
            for item, at in taken:
                assert at == before[item]
                parts.setdefault(item.name, []).extend(range(at, item.taken))
            ended.update(item.name for item in dropped)
    assert queue.waiting == 0
    for item in waiting:
        whole = list(range(item.count))
        assert parts.get(item.name, []) == (
            whole if item.name not in ended else whole[: item.taken]
        )
        assert item.name in ended or item.state is JobState.RUNNING
