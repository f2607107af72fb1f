"""Several processes that train one net together, connected by JAX.

Only steps of the training are computed together, from copies of Keras's variables that JAX sees as
one value on all devices. The variables themselves stay ordinary ones of each process, and with
them all that Keras does: saving, evaluating and exporting need no other process.

A process that is lost ends the others: at once where its connections break, else when it has sent
no heartbeat for HEARTBEAT_S.

Source: https://docs.jax.dev/en/latest/multi_process.html.
"""

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from convserve_trainer.errors import DivergedError, LostProcessError, TrainerError
from convserve_trainer.host import signals
from convserve_trainer.host.launcher import Member
from convserve_trainer.nets import jax_backend, keras_backend

#: For all processes to start: an engine may have to fetch an image for some. Then JAX aborts.
CONNECT_S = 600
HEARTBEAT_S = 30  # JAX's own is 100; a process that computes sends them all the same


class Group:
    """The processes, seen by one of them; see `joined`.

    All of them must call each method in the same order.

    Args:
        member: which of them this is.

    Attributes:
        member: see above.
        devices: that all of them have together; each process has as many.
        jit_options: for `jax.jit`, of steps whose results all devices have.
        left: whether the processes have parted.
    """

    def __init__(self, member: Member) -> None:
        import jax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        self.member = member
        self.devices = jax.device_count()
        mesh = Mesh(np.array(jax.devices()), ("pictures",))
        self._copies = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]
        parts = PartitionSpec("pictures")  # type: ignore[no-untyped-call]
        self._parts = NamedSharding(mesh, parts)
        self.jit_options: dict[str, Any] = {"out_shardings": self._copies}
        self.left = False

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """Returns the values of each process, in the order of their numbers, exactly.

        Args:
            values: as many in every process.

        Raises:
            LostProcessError: another process has ended.
        """
        from jax.experimental import multihost_utils

        # JAX would round float64 to float32.
        bits = np.array(values, np.float64).view(np.uint32)
        with self.watched():
            found = np.ascontiguousarray(multihost_utils.process_allgather(bits))
        rows: list[list[float]] = found.view(np.float64).tolist()
        return rows

    def of_first(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Returns the arrays of process 0.

        Args:
            arrays: of the same shapes and types in every process.

        Raises:
            LostProcessError: another process has ended.
        """
        from jax.experimental import multihost_utils

        with self.watched():
            found: list[npt.NDArray[Any]] = multihost_utils.broadcast_one_to_all(list(arrays))
        return found

    def text_of_first(self, text: str) -> str:
        """Returns the text of process 0, of any length.

        Raises:
            LostProcessError: another process has ended.
        """
        content = np.frombuffer(text.encode(), np.uint8)
        [size] = self.gather([len(content)])[0]
        [found] = self.of_first([np.resize(content, int(size))])
        return found.tobytes().decode()

    def copies(self, values: Sequence[Any]) -> list[Any]:
        """Returns values of this process, which the others have too, as values on all devices."""
        import jax

        here = jax.local_devices()
        return [
            jax.make_array_from_single_device_arrays(
                value.shape, self._copies, [jax.device_put(value, device) for device in here]
            )
            for value in values
        ]

    def parts(self, arrays: Sequence[npt.NDArray[Any]]) -> tuple[Any, ...]:
        """Returns the arrays of all processes, joined in the order of their numbers."""
        import jax

        join = jax.make_array_from_process_local_data
        return tuple(join(self._parts, array) for array in arrays)  # type: ignore[no-untyped-call]

    def here(self, values: Sequence[Any]) -> list[Any]:
        """Returns values on all devices as ordinary ones of this process."""
        return [value.addressable_data(0) for value in values]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Makes JAX's complaint that it cannot reach the others an error of one line.

        Raises:
            LostProcessError: so.
        """
        import jax

        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if jax_backend.refused_memory(error) is not None:
                raise
            why = str(error).partition("\n")[0]
            raise LostProcessError(
                f"{self.member}: the others cannot be reached any more ({why}); the output of the "
                "one that ended says why; all have to be started again, with --resume"
            ) from error

    def leave(self) -> None:
        """Waits for all, and parts from them; a second call does nothing.

        Raises:
            LostProcessError: another process has ended.
        """
        if self.left:
            return
        import jax

        with signals.immediate():
            self.gather([])
            jax.distributed.shutdown()  # type: ignore[no-untyped-call]
        self.left = True

    @contextmanager
    def alike(self) -> Iterator[None]:
        """Lets all processes part where all of them raise an error of the same kind."""
        try:
            yield
        except TrainerError:
            self.leave()
            raise


@contextmanager
def joined(member: Member | None) -> Iterator[Group | None]:
    """Connects this process with the others; None for a process that trains alone.

    At the end it waits for all of them. An error of one alone ends it without that, so that the
    others notice.

    Args:
        member: which process this is.

    Raises:
        LostProcessError: the others do not come, or one of them has ended.
    """
    if member is None:
        yield None
        return
    group = None
    try:
        group = _connected(member)
        try:
            yield group
        except DivergedError:  # in all of them
            group.leave()
            raise
        group.leave()
    except BaseException as error:
        if group is None or not group.left:
            # At the end of a program JAX waits for processes that may wait for this one.
            atexit.register(os._exit, getattr(error, "status", 1))
        raise


def _connected(member: Member) -> Group:
    """Returns the group, once all processes have come."""
    jax_backend.prepare()
    import jax

    # It would handle SIGTERM in place of us.
    jax.config.update("jax_enable_preemption_service", False)  # type: ignore[no-untyped-call]
    try:
        with signals.immediate():
            jax.distributed.initialize(
                member.address,
                member.count,
                member.number,
                cluster_detection_method="deactivate",
                initialization_timeout=CONNECT_S,
                heartbeat_timeout_seconds=HEARTBEAT_S,
            )
            keras_backend.load()
            group = Group(member)
            group.gather([])  # the processes connect with each other, too
    except jax.errors.JaxRuntimeError as error:
        why = str(error).partition("\n")[0]
        raise LostProcessError(
            f"{member}: the others cannot be reached at {member.address}: {why}"
        ) from error
    return group
