"""What a recipe says of nets that teach the one that is trained."""

from typing import Annotated

from msgspec import Meta, Struct


class Distillation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Teachers, and how much their answers count beside the labels.

    The teachers answer each picture as it is changed at random for the net that is trained, and it
    learns the mean of their answers: also how like each other class a picture is.

    Attributes:
        teachers: paths of bundles, or of their files net.keras, that take the same pictures and
            know the same classes; none for no distillation.
        share: of the loss, that of the teachers' answers; the rest is that of the labels.
        temperature: by which both nets' logits are divided in the teachers' part of the loss, whose
            gradient is scaled back by its square.

    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network".
    """

    teachers: tuple[str, ...] = ()
    share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    temperature: Annotated[float, Meta(gt=0, le=100)] = 1.0

    def check(self) -> None:
        """Raises ValueError where settings do not go together."""
        if not self.teachers and self != Distillation():
            raise ValueError("distillation.teachers: expected one or more, got none")
