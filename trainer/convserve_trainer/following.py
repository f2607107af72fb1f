"""The other processes of a training over several: process 0 goes through the whole `pipeline`."""

import os

from convserve_trainer import joint, pipeline
from convserve_trainer.context import Context
from convserve_trainer.fitting import messages
from convserve_trainer.nets import keras_backend, models, starts
from convserve_trainer.runs import run_key
from convserve_trainer.runs.followed_run import FollowedRun


def follow(context: Context) -> None:
    """Trains with process 0, which alone prints, keeps and publishes, and waits until it has.

    Raises:
        TrainerError: anything a user can mend.
        Stopped: Ctrl-C or SIGTERM in one of the processes.
        MemoryError: there is not enough.
    """
    models.check_size(context.recipe)
    context.origins = starts.check(context.recipe)
    out = context.out
    with (
        keras_backend.memory_errors(),
        joint.joined(context) as group,
        open(os.devnull, "w") as nowhere,
    ):
        assert group is not None
        context.group = group
        pipeline.load(context)
        if joint.settle(context, group):
            messages.print_processes(context.recipe, group.member, out)
            context.out = nowhere  # process 0 prints the same
            context.run = _run(context)
            pipeline.build(context)
            pipeline.fit(context)
    print(f"{group.member}: process 0 has published", file=out, flush=True)


def _run(context: Context) -> FollowedRun:
    key = run_key.make_run_key(
        context.recipe, context.data.sha256, keras_backend.chosen(), context.origins
    )
    unnamed = run_key.unnamed_folder(context.target.models, context.target.name, key)
    return FollowedRun(context.policy.folder or unnamed, key, context.policy.seconds, named=True)
