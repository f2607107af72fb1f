"""The same as open_loop with the library's asyncio client, its retries on, for files.

Of the client only what earlier revisions have too is used: it is run with the client of the same
revision as the server.
"""

import argparse
import asyncio
import gc
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.batch_count import computed
from benchmarks.harness.processes import process_tree
from convserve import AsyncClient, ConvserveError

_PATIENCE_S = 30.0
_LATE_SHARE = 0.05
_MOST_FILES = 64
#: Calls that are due are begun so often, s.
_TICK_S = 0.001
_TOGETHER = 8


class CountingClient(AsyncClient):
    """Counts its tries, though not those of the channel."""

    tries = 0

    async def _perform(self, step: Any) -> Any:
        self.tries += type(step).__name__ == "UnaryCall"  # Of a module that was another one once.
        return await super()._perform(step)


class Loop:
    """The calls of one run.

    Args:
        arguments: of the command.
        files: sent in turn.
        clients: used in turn.
    """

    def __init__(
        self, arguments: argparse.Namespace, files: list[bytes], clients: list[CountingClient]
    ) -> None:
        self._arguments = arguments
        self._files = files
        self._clients = clients
        self._failures: Counter[str] = Counter()
        self._messages: dict[str, str] = {}
        self._times_s: list[float] = []
        self._in_time = 0
        self._good_between = 0
        self._late = 0
        self._due = 0
        self._from_s = self._end_s = 0.0

    async def run(self) -> dict[str, Any]:
        """Makes the calls; returns what came of them."""
        arguments = self._arguments
        begin_s = time.perf_counter()
        self._from_s = begin_s + arguments.warm_up
        self._end_s = self._from_s + arguments.seconds
        cpu_s, number = time.process_time(), 0
        async with asyncio.TaskGroup() as tasks:
            while (due_s := begin_s + number / arguments.rate) < self._end_s:
                now_s = time.perf_counter()
                if due_s > now_s:
                    await asyncio.sleep(max(_TICK_S, due_s - now_s))
                    continue
                tasks.create_task(self._call(number, due_s))
                number += 1
                if number % _TOGETHER == 0:
                    await asyncio.sleep(0)  # Answers must be read while calls are behind.
            cpu_s = time.process_time() - cpu_s
        tries = sum(client.tries for client in self._clients)
        p50, p99 = np.percentile(self._times_s or [np.nan], (50, 99)).tolist()
        return {
            "good_per_s": self._good_between / arguments.seconds,
            "good": len(self._times_s),
            "failures": dict(self._failures),
            "messages": self._messages,
            "p50_ms": p50 * 1e3,
            "p99_ms": p99 * 1e3,
            "due": self._due,
            "late": self._late,
            "in_time": self._in_time,
            "lost": 0,
            "lost_reason": "",
            "cpu_share": cpu_s / (arguments.warm_up + arguments.seconds),
            "tries": tries / number,
        }

    async def _call(self, number: int, due_s: float) -> None:
        counts = due_s >= self._from_s
        deadline_s = self._arguments.deadline
        late_s = time.perf_counter() - due_s
        self._due += counts
        self._late += counts and late_s > _LATE_SHARE * deadline_s
        client = self._clients[number % len(self._clients)]
        name = "DEADLINE_EXCEEDED"
        if late_s < deadline_s:
            try:
                await client.classify_images(
                    self._files[number % len(self._files)],
                    model=self._arguments.model,
                    timeout=deadline_s - late_s,
                )
            except ConvserveError as error:
                name = error.code.name if error.code else type(error).__name__
                self._messages.setdefault(name, str(error))
            else:
                name = ""
        now_s = time.perf_counter()
        if not name and now_s - due_s <= deadline_s:
            self._in_time += 1
            self._good_between += self._from_s <= now_s <= self._end_s
            if counts:
                self._times_s.append(now_s - due_s)
        elif counts:
            self._failures[name or "DEADLINE_EXCEEDED"] += 1


async def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    paths = sorted(Path(arguments.pictures).rglob("*.jpg"))[:_MOST_FILES]
    files = [path.read_bytes() for path in paths]
    clients = [
        CountingClient(arguments.server, timeout=_PATIENCE_S) for _ in range(arguments.connections)
    ]
    for client in clients:
        await client.classify_images(files[0], model=arguments.model)
        client.tries = 0
    before, cpu_before_s = computed(arguments.count), sum(process_tree(arguments.root).values())
    gc.collect()
    gc.disable()
    result = await Loop(arguments, files, clients).run()
    after, cpu_after_s = computed(arguments.count), sum(process_tree(arguments.root).values())
    for client in clients:
        await client.close()
    return result | {
        "computed": after.images - before.images,
        "server_cpu_s": cpu_after_s - cpu_before_s,
        "batches": after.batches - before.batches,
    }


def main() -> None:
    """Makes the calls."""
    parser = argparse.ArgumentParser()
    for name in ("--server", "--model", "--pictures", "--count"):
        parser.add_argument(name, required=True)
    for name in ("--rate", "--deadline", "--seconds", "--warm-up"):
        parser.add_argument(name, type=float, required=True)
    parser.add_argument("--root", type=int, required=True)
    parser.add_argument("--connections", type=int, default=8)
    print(json.dumps(asyncio.run(_run(parser.parse_args()))))


if __name__ == "__main__":
    try:
        main()
    except ConvserveError as error:
        sys.exit(f"{error}")
