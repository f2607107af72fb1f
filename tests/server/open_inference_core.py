"""A core without engines: what a protocol passes to it, and answers that the test chooses."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from convserve_server.core.batch_request import Answer
from convserve_server.core.classifier import Cancel, InputsAnswer
from convserve_server.core.descriptions import ModelDescription, signature_of_images
from convserve_server.core.errors import ModelLoading, NotFound, QueueFull, ServeError
from convserve_server.core.image_files_call import FilesAnswer
from convserve_server.core.jobs import Priority
from convserve_server.core.models import VersionChoice
from convserve_server.engines.base import Inputs, Outputs
from convserve_server.engines.signatures import Signature, TensorSpec
from tests.bundles import CLASSES, SHAPE

MAX_ROWS = 8


def description(
    name: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    batched: bool = True,
    version: int = 1,
) -> ModelDescription:
    """A model that is not a bundle."""
    signature = Signature(tuple(inputs), tuple(outputs), batched)
    return ModelDescription(name, version, (), (0, 0, 0), 0, "CPU", b"", signature, 16)


def bundle(name: str = "mnist", version: int = 1) -> ModelDescription:
    """A bundle as that of tests.bundles."""
    labels = tuple(f"digit {number}" for number in range(CLASSES))
    return ModelDescription(
        name, version, labels, SHAPE, CLASSES, "CPU", b"manifest",
        signature_of_images(SHAPE, CLASSES), 16,
    )  # fmt: skip


class FakeCore:
    """See Classifier: as much of it as Open Inference asks for.

    Attributes:
        run: what the models give for their inputs.
        inputs: what each call has brought.
        asked: the deadline and priority of each call.
        damaged: files that cannot be decoded, and why.
        refuses: why every call is refused, if it is.
        loading: names of models that are being loaded.
        labels: the version that each label names.
    """

    max_images = MAX_ROWS

    def __init__(self, *models: ModelDescription) -> None:
        self._models = sorted(models, key=lambda one: (one.name, -one.version))
        self.run: Callable[[Any], Outputs] = lambda inputs: inputs
        self.inputs: list[Inputs | Sequence[bytes]] = []
        self.asked: list[tuple[float | None, Priority | None]] = []
        self.failures: dict[int, ServeError] = {}
        self.damaged = False
        self.refuses: QueueFull | None = None
        self.loading: set[str] = set()
        self.labels: dict[str, int] = {}
        self.unserved: dict[tuple[str, int], str] = {}

    def models(self) -> list[ModelDescription]:
        return self._models

    def refused(self) -> Mapping[tuple[str, int], str]:
        return self.unserved

    def version_labels(self, name: str) -> Mapping[str, int]:
        del name
        return self.labels

    def refusal(self, *asked: object) -> tuple[str, QueueFull] | None:
        del asked
        return None if self.refuses is None else ("mnist/1", self.refuses)

    def describe(self, name: str, version: VersionChoice) -> ModelDescription:
        if name in self.loading:
            raise ModelLoading(f"model {name} is being loaded")
        if isinstance(version, str):
            version = self.labels.get(version, 0)
        for model in self._models:
            if model.name == name and version in (None, model.version):
                return model
        raise NotFound("model", name, f"no model {name!r}")

    def submit(
        self,
        model: str,
        version: VersionChoice,
        answer: InputsAnswer,
        *,
        deadline: float | None = None,
        connection: Hashable = "",
        priority: Priority | None = None,
        idle_caller: bool = False,
    ) -> Cancel:
        del connection, idle_caller
        inputs = answer.inputs(self.describe(model, version))
        self.inputs.append(inputs)
        self.asked.append((deadline, priority))
        if self.refuses is not None:
            raise self.refuses
        answer.queued()
        answer.finish(Answer(self.run(inputs), 0.0, 0.0, self.damaged))
        return lambda: None

    def submit_files(
        self,
        model: str,
        version: VersionChoice,
        files: Sequence[bytes],
        answer: FilesAnswer,
        *,
        deadline: float | None = None,
        connection: Hashable = "",
        priority: Priority | None = None,
    ) -> Cancel:
        del connection
        answer.begin(self.describe(model, version))
        self.inputs.append(files)
        self.asked.append((deadline, priority))
        try:
            answer.decoded(self.failures, {}, 0.0, 0.0)
        except ServeError as error:
            answer.finish(error)
        else:
            answer.finish(Answer(np.zeros((len(files), CLASSES), np.float32), 0.0, 0.0))
        return lambda: None
