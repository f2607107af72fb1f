"""What every engine over ONNX Runtime has: a session, and the shapes that a bundle must have."""

from typing import Any

from convserve_bundle.contract import INPUT, OUTPUT
from convserve_server.engines.base import EngineError
from convserve_server.host.spare_cpus import SpareCpus


class SessionEngine:
    """What the engines share: the session and its shapes.

    Args:
        session: of ONNX Runtime.
        provider: name of its execution provider.
        max_batch: maximum batch size, images.

    Attributes:
        parallel: see Engine.
        spare: see Engine.

    Raises:
        EngineError: the model is not one of a bundle.
    """

    parallel = 1
    spare: SpareCpus | None = None

    def __init__(self, session: Any, provider: str, max_batch: int) -> None:
        self._session = session
        self.provider = provider
        self.max_batch = max_batch
        self.image_shape = _image_shape(session)
        self.classes = _classes(session)
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)


def _image_shape(session: Any) -> tuple[int, int, int]:
    inputs = {value.name: value for value in session.get_inputs()}
    if list(inputs) != [INPUT]:
        raise EngineError(f"inputs: expected one named {INPUT}, got {sorted(inputs)}")
    value = inputs[INPUT]
    # Sizes that the file leaves open are names, or None.
    fixed = [isinstance(size, int) for size in value.shape]
    if value.type != "tensor(uint8)" or fixed != [False, True, True, True]:
        raise EngineError(
            f"input {INPUT}: expected uint8 [N, H, W, C] with N alone open, "
            f"got {value.type} {value.shape}"
        )
    height, width, channels = value.shape[1:]
    return height, width, channels


def _classes(session: Any) -> int:
    outputs = {value.name: value for value in session.get_outputs()}
    value = outputs.get(OUTPUT)
    if value is None:
        raise EngineError(f"outputs: expected one named {OUTPUT}, got {sorted(outputs)}")
    if value.type != "tensor(float)" or [isinstance(s, int) for s in value.shape] != [False, True]:
        raise EngineError(
            f"output {OUTPUT}: expected float32 [N, K] with N alone open, "
            f"got {value.type} {value.shape}"
        )
    classes: int = value.shape[1]
    return classes
