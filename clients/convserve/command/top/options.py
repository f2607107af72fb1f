"""The options of `convserve top`, and their values."""

from __future__ import annotations

import argparse
import os
from urllib.parse import urlsplit

from convserve.command import connection_options, option_values

METRICS_VARIABLE = "CONVSERVE_METRICS"
KEY_FILE_VARIABLE = "CONVSERVE_METRICS_KEY_FILE"
DEFAULT_METRICS = "http://127.0.0.1:9464/metrics"
DEFAULT_INTERVAL_S = 2.0

ABOUT = (
    "Shows what a server does: its models, rates, latencies, batch sizes, queues and workers, drawn"
    " anew at each interval until Ctrl-C. It reads the server's metrics page, which the server has"
    " with --metrics-port 9464. Rates, latencies and batch sizes are those of the last interval."
    " Where standard output is not a terminal, one interval is printed as text."
)
EXAMPLES = (
    "convserve top",
    "convserve top --metrics http://gpu1:9464/metrics --interval 5",
    "convserve top --format json",
)


def add_source(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds where the page is, and how often it is read; returns the group."""
    group = command.add_argument_group("metrics")
    group.add_argument(
        "--metrics",
        metavar="URL",
        type=page_url,
        default=os.environ.get(METRICS_VARIABLE) or DEFAULT_METRICS,
        help=f"the server's metrics page, http or https [default: {DEFAULT_METRICS}]"
        f" [env: {METRICS_VARIABLE}]",
    )
    connection_options.add_tls_files(group)
    group.add_argument(
        "--key-file",
        metavar="FILE",
        default=os.environ.get(KEY_FILE_VARIABLE) or None,
        help="file with the key that the page needs, the server's --metrics-key-file [default: no"
        f" key] [env: {KEY_FILE_VARIABLE}]",
    )
    group.add_argument(
        "--interval",
        metavar="S",
        type=option_values.timeout_seconds,
        default=DEFAULT_INTERVAL_S,
        help="seconds between two readings, above 0 [default: %(default)g]",
    )
    return group


def add_once(output: argparse._ArgumentGroup) -> None:
    """Adds the option for a single interval."""
    output.add_argument(
        "--once",
        action="store_true",
        help="print one interval as text and end [default: where stdout is not a terminal]",
    )


def page_url(text: str) -> str:
    """Returns the address of a page; without a path that is /metrics."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # A port that is not a number, or half of an IPv6 address.
        usable = False
    if not usable or "@" in parts.netloc or not text.isascii() or not text.isprintable():
        example = DEFAULT_METRICS
        raise argparse.ArgumentTypeError(f"expected a URL, as {example}, got {text!r}")
    return text if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/metrics"
