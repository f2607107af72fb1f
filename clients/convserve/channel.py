"""How the client uses its connections: retries, balancing, keepalive, sizes of messages."""

from __future__ import annotations

import json

# Replies come from a server that the caller chose; requests are limited by the server.
MAX_REPLY_BYTES = 16 * 2**20

# gRPC keeps a message for a retry only up to 256 KiB unless told otherwise, and ours are larger.
RETRY_BUFFER_BYTES = 8 * 2**20

# Servers count pings on a silent connection against a client ("too_many_pings") when they come more
# often than every five minutes, which is gRPC's default on their side.
KEEPALIVE_EVERY_MS = 300_000
# Applies to unacknowledged bytes as well, so a dead peer is noticed this soon during a call.
KEEPALIVE_WAIT_MS = 20_000

# Classifying changes nothing on the server, so a call that was refused or lost may be sent again.
# The server says how long to wait, or not to try again, in the trailer grpc-retry-pushback-ms.
#
# Source: gRFC A6, client retries. Hedging stays off: it multiplies the load of a busy server.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "convserve.v1.Classifier"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ],
    # When half of these are used up by failures, retries stop until calls succeed again.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
}


def channel_options() -> list[tuple[str, str | int]]:
    """Returns the options of a gRPC channel, the same for both clients."""
    return [
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.enable_retries", 1),
        # Otherwise clients of one process share connections: a new client then meets the failed one
        # of a closed client, and a second client brings no second connection.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.per_rpc_retry_buffer_size", RETRY_BUFFER_BYTES),
        ("grpc.keepalive_time_ms", KEEPALIVE_EVERY_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_WAIT_MS),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
    ]
