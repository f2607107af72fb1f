"""Calls a server without a pause until SIGTERM, then prints what failed. For the client's image.

    python outage_client.py SERVER [--threads N] [--images N] [--report-after N]

Prints "answered" after N answers; at SIGTERM one JSON object: calls answered, by version; when
each version first answered, s since 1970; what failed, by message; the longest wait for an answer,
s; calls/s.
"""

import argparse
import collections
import json
import signal
import threading
import time

import numpy as np

from convserve import Client, ConvserveError


def main() -> None:
    """Calls until SIGTERM comes; prints the outcome."""
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=1, help="in a call")
    parser.add_argument("--report-after", type=int, default=1, metavar="N", help="answers")
    options = parser.parse_args()
    digits = np.random.default_rng(1).integers(0, 256, (options.images, 28, 28), dtype=np.uint8)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    lock = threading.Lock()
    versions: collections.Counter[int] = collections.Counter()
    first_s: dict[int, float] = {}
    failed: collections.Counter[str] = collections.Counter()
    longest_s = 0.0
    with Client(options.server, model="mnist", timeout=30, wait_for_ready=True) as client:

        def call() -> None:
            nonlocal longest_s
            while not stop.is_set():
                started = time.monotonic()
                try:
                    version, error = client.classify(digits).version, ""
                except ConvserveError as caught:
                    version, error = 0, f"{type(caught).__name__}: {caught}"
                with lock:
                    longest_s = max(longest_s, time.monotonic() - started)
                    if error:
                        failed[error] += 1
                    else:
                        versions[version] += 1
                        first_s.setdefault(version, time.time())
                        if versions.total() == options.report_after:
                            print("answered", flush=True)

        started = time.monotonic()
        threads = [threading.Thread(target=call) for _ in range(options.threads)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        took_s = time.monotonic() - started
    answered = versions.total()
    counts = {"answered": answered, "versions": versions, "first_s": first_s, "failed": failed}
    print(json.dumps(counts | {"longest_s": longest_s, "calls_per_s": answered / took_s}))


if __name__ == "__main__":
    main()
