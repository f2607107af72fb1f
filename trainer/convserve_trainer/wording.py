"""Counts in words: "1 epoch", "2 epochs"."""


def counted(number: int, one: str, more: str = "") -> str:
    """Returns a number with what it counts.

    Args:
        number: 0 or more.
        one: a single thing: "epoch", "class".
        more: several things; empty for `one` with an s.
    """
    return f"{number:,} {one if number == 1 else more or one + 's'}"
