"""What the processes that train one net together settle with each other before the first step."""

import json
from contextlib import AbstractContextManager
from typing import Any

from convserve_trainer.context import Context
from convserve_trainer.errors import UsageError
from convserve_trainer.fitting import messages, shares
from convserve_trainer.nets import keras_backend, process_group
from convserve_trainer.nets.process_group import Group
from convserve_trainer.runs import run_key


def joined(context: Context) -> AbstractContextManager[Group | None]:
    """Returns what connects this process with the others; see `process_group.joined`."""
    if context.member is not None:
        messages.print_waiting(context.member, context.out)
    return process_group.joined(context.member)


def settle(context: Context, group: Group, published: bool = False) -> bool:
    """Returns whether the processes are to train, which process 0 knows.

    Args:
        context: with its data.
        group: of the processes.
        published: whether the net was before; only that of process 0 counts.

    Raises:
        UsageError: in all processes: one has other settings or data than process 0, or a batch
            cannot be divided.
        LostProcessError: another process has ended.
    """
    settings = run_key.make_run_key(
        context.recipe, context.data.sha256, keras_backend.chosen(), context.origins
    )
    mine = json.dumps({"published": published, "settings": settings | _epochs(context)})
    first: dict[str, Any] = json.loads(group.text_of_first(mine))
    with group.alike():
        differing = run_key.differences(first["settings"], json.loads(mine)["settings"])
        _check_alike(group, differing)
        if not first["published"]:
            shares.check(context.recipe, len(context.data.train), group.devices)
    return not first["published"]


def _epochs(context: Context) -> dict[str, int]:
    return {"epochs": context.recipe.epochs}


def _check_alike(group: Group, differing: str) -> None:
    """Raises UsageError in all processes, where something differs in one of them."""
    others = [number for number, [wrong] in enumerate(group.gather([bool(differing)])) if wrong]
    if not others:
        return
    what = differing or "its output says in what they differ"
    number = group.member.number if differing else others[0]
    raise UsageError(f"process {number}: expected the settings and data of process 0; {what}")
