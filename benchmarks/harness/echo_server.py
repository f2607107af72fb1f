"""A server that answers every call with the same bytes: what pygrpc-native itself costs.

    python -m benchmarks.harness.echo_server BYTES

It fetches and answers calls as convserve's native front does, in one thread, and does nothing else.
"""

import argparse
import json

from pygrpc_native import EVENT_CALL, NativeGrpcFront

from benchmarks.harness.answers import CLASSIFY

_MAX_EVENTS = 4096


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bytes", type=int)
    answer = bytes(parser.parse_args().bytes)
    front = NativeGrpcFront("127.0.0.1:0", [(CLASSIFY, False)], call_details=True)
    front.start()
    print(json.dumps({"port": front.bound_port}), flush=True)
    while (events := front.recv_batch_details(_MAX_EVENTS)) is not None:
        for event in events:
            if event[0] == EVENT_CALL:
                front.respond(event[1], answer)


if __name__ == "__main__":
    main()
