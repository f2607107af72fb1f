"""The state of a training, given by process 0 to the others before the first step.

So only process 0 needs the folder of checkpoints, and a training may go on in any number of
processes.
"""

import json
from dataclasses import asdict

from convserve_trainer.fitting import jax_steps
from convserve_trainer.nets.process_group import Group
from convserve_trainer.runs.history import History, read_csv
from convserve_trainer.runs.training_state import Means, Training, UnderWay


def share(training: Training, group: Group) -> None:
    """Makes a training what it is in process 0.

    Args:
        training: of the same net in every process; changed in place. The weights of the best epoch
            stay in process 0, which alone needs them.
        group: of the processes.

    Raises:
        LostProcessError: another process has ended.
    """
    model = training.model
    jax_steps.build_optimizer(model)
    variables = [*model.variables, *model.optimizer.variables]
    values = group.of_first([variable.numpy() for variable in variables])
    about = {"under_way": asdict(training.under_way), "history": training.history.csv()}
    found = json.loads(group.text_of_first(json.dumps(about)))
    if group.member.number == 0:
        return
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    under_way = found["under_way"]
    training.under_way = UnderWay(means=Means(**under_way.pop("means")), **under_way)
    training.history = History(read_csv(found["history"]))
