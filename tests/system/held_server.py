"""A worker whose engine waits until the worker is stopping: then all answers come at the very end.

    python -m tests.system.held_server MODELS FRONT

Prints its port; reads how many images to wait for; stops; ends as a worker does.
"""

import os
import sys
import threading

from convserve_server.engines.bundles import load_bundle
from convserve_server.host.resources import plan_resources
from convserve_server.process.serving import Worker, make_transport
from convserve_server.settings.settings import make_settings
from tests.server.conftest import HeldEngine, PortKeeper
from tests.server.transports.test_conformance import until


def main() -> None:
    given = make_settings(
        models=sys.argv[1], front=sys.argv[2], port=0, lame_duck_s=0.0, max_batch=1024
    )
    settings = plan_resources(given, cpus=1).settings
    engine = HeldEngine()
    engine.max_batch = settings.batching.max_batch
    engine.hold()
    transport = PortKeeper(make_transport(settings, 0))
    worker = Worker(settings, [transport], lambda _, path, __: load_bundle(path, lambda _: engine))
    worker.start()
    print(transport.port, flush=True)
    wanted = int(sys.stdin.readline())
    batcher = worker.repository.get("mnist", None).batcher
    in_engine = engine.wait_entered()
    until(lambda: in_engine + batcher.waiting == wanted)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    until(lambda: worker._router._refusing)
    engine.release()
    stopping.join()
    os._exit(0)


if __name__ == "__main__":
    main()
