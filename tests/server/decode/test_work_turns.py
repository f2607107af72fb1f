"""Callers get equal shares of time, not of turns."""

from convserve_server.decode.work_turns import WorkTurns


def _turns() -> WorkTurns[tuple[str, float]]:
    return WorkTurns(lambda item: item[1])


def _order(turns: WorkTurns[tuple[str, float]]) -> list[str]:
    order = []
    while turns:
        order.append(turns.first()[0])
        turns.take(last=True)
    return order


def test_callers_take_turns_where_all_costs_the_same() -> None:
    turns = _turns()
    for name in ("a1", "a2", "a3", "b1", "c1", "c2"):
        turns.append(name[0], (name, 1.0))
    assert turns.callers == 3
    assert _order(turns) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert turns.callers == 0


def test_many_cheap_items_pass_a_dear_one() -> None:
    turns = _turns()
    turns.append("dear", ("dear", 10.0))
    for number in range(20):
        turns.append("cheap", (f"{number}", 1.0))
    order = _order(turns)
    assert order.index("dear") in (9, 10)
    assert len(order) == 21


def test_new_callers_with_dear_items_do_not_pass_those_who_wait() -> None:
    turns = _turns()
    turns.append("cheap", ("0", 1.0))
    order = []
    for number in range(1, 30):
        turns.append(f"new {number}", ("dear", 100.0))
        turns.append("cheap", (f"{number}", 1.0))
        order.append(turns.first()[0])
        turns.take(last=True)
    assert order == [str(number) for number in range(29)]


def test_item_of_several_parts_is_taken_part_by_part() -> None:
    turns = _turns()
    turns.append("many", ("many", 1.0))
    turns.append("one", ("one", 1.0))
    assert turns.first()[0] == "many"
    turns.take(last=False)
    assert _order(turns) == ["one", "many"]


def test_dropped_item_costs_its_caller_nothing() -> None:
    turns = _turns()
    turns.append("a", ("a1", 10.0))
    turns.append("a", ("a2", 2.0))
    turns.append("b", ("b", 11.0))
    assert turns.first()[0] == "a1"
    turns.drop()
    assert _order(turns) == ["a2", "b"]
