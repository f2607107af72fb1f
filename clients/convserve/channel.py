"""The one way to open a channel: retries, balancing, keepalive, sizes, proxies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from convserve import forks
from convserve.address import is_local

if TYPE_CHECKING:
    from convserve.tls import Tls

# Replies come from a server that the caller chose; requests are limited by the server.
MAX_REPLY_BYTES = 16 * 2**20

# gRPC keeps a message for a retry only up to 256 KiB by default, and ours are larger.
RETRY_BUFFER_BYTES = 8 * 2**20

# Servers count pings on a silent connection against a client ("too_many_pings") when they come more
# often than every five minutes, which is gRPC's default on their side.
KEEPALIVE_EVERY_MS = 300_000
# Applies to unacknowledged bytes as well, so a dead peer is noticed this soon during a call.
KEEPALIVE_WAIT_MS = 20_000

# A server that was killed is back within seconds, often at another address behind the same name (a
# container). gRPC's own bounds are made for services that are gone for long: pauses between two
# tries to connect grow to 120 s, one try may last 20 s (and does, where an address has no host any
# more), and a name is looked up again no sooner than 30 s after the last time.
FIRST_RECONNECT_MS = 200
LONGEST_RECONNECT_MS = 3_000
CONNECT_WITHIN_MS = 5_000
RESOLVE_EVERY_MS = 2_000

# Classifying changes nothing on the server, so a call that was lost may be sent again. What follows
# a refusal of a busy server (RESOURCE_EXHAUSTED) is in retries.py: this policy knows of no time but
# that in the trailer grpc-retry-pushback-ms, which not every transport of the server can send.
#
# Source: gRFC A6, client retries. Hedging stays off: it multiplies the load of a busy server.
RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": "convserve.v1.Classifier"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # When half of these are used up by failures, retries stop until calls succeed again. A server
    # that is killed fails all calls in flight at once, and they are to be tried again: up to 500,
    # since 1000 is gRPC's maximum.
    "retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.5},
}


def channel_options(server: str, *, retry_unavailable: bool = True) -> list[tuple[str, str | int]]:
    """Returns the options of a gRPC channel to a server, the same for both clients.

    Args:
        server: As for address.validate_server.
        retry_unavailable: Make lost calls again, by RETRIES.
    """
    retries = RETRIES if retry_unavailable else {}
    config = {"loadBalancingConfig": [{"round_robin": {}}], **retries}
    return [
        ("grpc.service_config", json.dumps(config)),
        # Without RETRIES as well: for what no server has seen, as gRPC can tell by itself.
        ("grpc.enable_retries", 1),
        # gRPC reads http_proxy even for this machine, which no proxy elsewhere can connect to.
        ("grpc.enable_http_proxy", 0 if is_local(server) else 1),
        # Otherwise clients of one process share connections: a new client then meets the failed one
        # of a closed client, and a second client brings no second connection.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.per_rpc_retry_buffer_size", RETRY_BUFFER_BYTES),
        ("grpc.keepalive_time_ms", KEEPALIVE_EVERY_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_WAIT_MS),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.initial_reconnect_backoff_ms", FIRST_RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", LONGEST_RECONNECT_MS),
        # Named after the pauses, and the time that one try may take.
        ("grpc.min_reconnect_backoff_ms", CONNECT_WITHIN_MS),
        ("grpc.dns_min_time_between_resolutions_ms", RESOLVE_EVERY_MS),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
    ]


def open_channel(server: str, api: Any, tls: Tls | None, *, retry_unavailable: bool = True) -> Any:
    """Opens the channel of a client; the connection is made when it is first needed.

    Args:
        server: As for address.validate_server.
        api: The module grpc or grpc.aio.
        tls: None: without TLS.
        retry_unavailable: As for channel_options.

    Returns:
        A channel of that module.

    Raises:
        ForkedProcess: gRPC was used before this process was forked.
        InvalidRequest: A file of TLS cannot be used.
    """
    forks.use()
    options = channel_options(server, retry_unavailable=retry_unavailable)
    if tls is None:
        channel = api.insecure_channel(server, options=options)
    else:
        channel = api.secure_channel(server, tls.credentials(), [*options, *tls.options()])
    forks.hold(channel)
    return channel
