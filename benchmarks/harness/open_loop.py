"""A generator of its own process: calls with a deadline, at a rate; prints what came as JSON.

It drives `convserve bench`'s HTTP/2 client, whose command has no use for what only a benchmark
knows: how many images the engine computed meanwhile, and how much processor time the server used.
"""

import argparse
import gc
import json
import math
import sys
from dataclasses import replace

from benchmarks.harness.batch_count import computed
from benchmarks.harness.processes import process_tree
from convserve import ConvserveError
from convserve_bench.generator import Calls, Generator
from convserve_bench.load import Load
from convserve_bench.tally import Tally
from convserve_bench.workload import Workload, prepare

#: For the first calls, before there is any load, s.
_PATIENCE_S = 30.0
#: A call that is sent by such a share of its deadline too late does not count as on time.
LATE_SHARE = 0.05


def _parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser()
    result.add_argument("--server", required=True)
    result.add_argument("--model", required=True)
    result.add_argument("--images", type=int, default=1)
    result.add_argument("--pictures")
    result.add_argument("--rate", type=float)
    result.add_argument("--deadline", type=float, required=True)
    result.add_argument("--callers", type=int, required=True)
    result.add_argument("--connections", type=int, default=8)
    result.add_argument("--seconds", type=float, required=True)
    result.add_argument("--warm-up", type=float, required=True)
    result.add_argument("--count", required=True)
    result.add_argument("--root", type=int, required=True)
    result.set_defaults(timeout=_PATIENCE_S, wait=0.0, model_version=None, pixels=False, seed=0)
    return result


def _with_deadline(workload: Workload, deadline_s: float) -> Calls:
    timeout = f"{math.ceil(deadline_s * 1e6)}u".encode()
    fields = [
        (name, timeout if name == b"grpc-timeout" else value)
        for name, value in workload.calls.fields
    ]
    return replace(workload.calls, fields=fields)


def main() -> None:
    """Makes the calls."""
    arguments = _parser().parse_args()
    workload = prepare(arguments)
    load = Load(
        callers=arguments.callers,
        connections=min(arguments.connections, arguments.callers),
        seconds=arguments.seconds,
        warm_up_s=arguments.warm_up,
        timeout_s=arguments.deadline,
        rate=arguments.rate,
        late_s=LATE_SHARE * arguments.deadline,
    )
    tally = Tally(workload.images, workload.least_reply_bytes, load.timeout_s)
    calls = _with_deadline(workload, load.timeout_s)
    generator = Generator(load, calls, tally, lambda *_: None)
    before, cpu_before_s = computed(arguments.count), sum(process_tree(arguments.root).values())
    gc.collect()
    gc.disable()  # A collection would be a stall of ours.
    generator.run()
    after, cpu_after_s = computed(arguments.count), sum(process_tree(arguments.root).values())
    schedule = generator.schedule
    lost, reason = generator.lost
    print(
        json.dumps(
            {
                "good_per_s": tally.answered / generator.seconds,
                "good": tally.histogram.count,
                "failures": tally.failures.counts,
                "messages": tally.failures.messages,
                "p50_ms": tally.histogram.percentile(0.5) * 1e3,
                "p99_ms": tally.histogram.percentile(0.99) * 1e3,
                "due": schedule.sent + generator.unsent if schedule else tally.seen,
                "late": schedule.late + schedule.waited + generator.unsent if schedule else 0,
                "computed": after.images - before.images,
                "in_time": tally.in_time * workload.images,
                "server_cpu_s": cpu_after_s - cpu_before_s,
                "batches": after.batches - before.batches,
                "lost": lost,
                "lost_reason": reason,
                "cpu_share": (generator.cpu_s or 0.0) / generator.seconds,
                "tries": 1.0,
            }
        )
    )


if __name__ == "__main__":
    try:
        main()
    except ConvserveError as error:
        sys.exit(f"{error}")
