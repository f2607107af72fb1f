"""How much is trained and tried for the lecture: minutes, or an hour."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Counts.

    Attributes:
        name: of `--scale`.
        sizes: of training sets.
        seeds: trainings for each size and net.
        steps: of each of these trainings, of 64 pictures each, whatever the size.
        held_out: held-out digits that nets are asked about.
        shifted: of these, how many are shifted.
        searched: held-out pictures that are searched for those which excite a filter.
        ascents: steps of gradient ascent.
        epochs: of the net that is trained anew for the calibration, and of the dense net; None for
            as many as the user's net had.
    """

    name: str
    sizes: tuple[int, ...]
    seeds: int
    steps: int
    held_out: int
    shifted: int
    searched: int
    ascents: int
    epochs: int | None


SCALES = {
    scale.name: scale
    for scale in (
        Scale("quick", (100, 300, 1_000, 3_000, 10_000), 3, 400, 10_000, 2_000, 2_000, 60, None),
        Scale(
            "full",
            (100, 300, 1_000, 3_000, 10_000, 30_000, 60_000),
            5,
            4_690,  # five passes over all 60,000
            10_000,
            10_000,
            10_000,
            200,
            None,
        ),
    )
}
