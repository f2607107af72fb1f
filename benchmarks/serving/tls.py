"""Measures what TLS, and what guards the native front, cost: calls/s and processor time a call.

    python -m benchmarks.serving.tls --models models --model mnist

The native front is there alone, without TLS; behind guards without TLS, as on an address that other
machines reach; and with TLS, which guards speak. With --grpcio the grpcio
front is there too, in plain and with TLS. All servers take turns; each round begins with another
one. Needs h2load, and trustme for the certificates. The table goes to standard output as Markdown,
progress to standard error.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import trustme

from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import add_run_options, add_server_options, execute, new_parser
from benchmarks.harness.meter import Meter, Subject, choose_driver, measurements, running
from benchmarks.harness.report import heading_of_load, machine, write_json
from benchmarks.harness.servers import ours
from benchmarks.harness.table import Cell, markdown, rows

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "pygrpc-native", "uvloop")
CELLS = (Cell(1, 1), Cell(16, 1), Cell(64, 1), Cell(4, 64))
#: Reachable by others, so that guards are there.
_ON_A_NETWORK = "--host 0.0.0.0 --insecure"


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.tls", __doc__)
    add_server_options(result)
    result.add_argument(
        "--model", default="mnist", metavar="NAME",
        help="of which the newest version is served [default: mnist]",
    )  # fmt: skip
    result.add_argument(
        "--callers", type=int, choices=[cell.callers for cell in CELLS],
        help="measure this load alone [default: all]",
    )  # fmt: skip
    result.add_argument("--grpcio", action="store_true", help="measure the grpcio front too")
    add_run_options(result, rounds=3, measured="server and cell")
    return result


def issue(folder: Path) -> tuple[str, bytes]:
    """Makes a certificate for this machine.

    Args:
        folder: for its files.

    Returns: flags of convserve-serve, and the authority to trust (PEM).
    """
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    cert, key = folder / "server.pem", folder / "server.key"
    cert.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(key))
    return f"--tls-cert {cert} --tls-key {key}", authority.cert_pem.bytes()


def subjects_of(
    bundle: Path, flags: str, asked: Questions, folder: Path, grpcio: bool
) -> list[Subject]:
    """Returns what is measured, the native front without guards first, which is the baseline.

    Args:
        bundle: the model file.
        flags: more flags for all servers.
        asked: what they are asked.
        folder: for certificates.
        grpcio: whether the grpcio front is measured too.
    """
    with_tls, authority = issue(folder)
    secret = replace(asked, authority=authority)
    plain_grpcio, plain = ours(bundle, flags)
    tls_grpcio, tls = ours(bundle, f"{with_tls} {flags}")
    _, guarded = ours(bundle, f"{_ON_A_NETWORK} {flags}")
    subjects = [
        Subject(plain, asked, "native"),
        Subject(guarded, asked, "native behind guards"),
        Subject(tls, secret, "native, TLS", tls=True),
    ]
    if grpcio:
        subjects.append(Subject(plain_grpcio, asked, "grpcio"))
        subjects.append(Subject(tls_grpcio, secret, "grpcio, TLS", tls=True))
    return subjects


def run(arguments: argparse.Namespace) -> None:
    """Start the servers, measure, stop them, print.

    Raises:
        BenchmarkError: see Meter.measure, Bundle.newest and choose_driver.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    on = machine(_PACKAGES)
    cells = [cell for cell in CELLS if arguments.callers in (None, cell.callers)]
    asked = Questions.of_pixels(bundle, max(cell.images for cell in CELLS))
    with tempfile.TemporaryDirectory(prefix="convserve-tls-") as folder:
        subjects = subjects_of(bundle.file, arguments.flags, asked, Path(folder), arguments.grpcio)
        with running(subjects):
            measured = list(measurements(meter, subjects, cells, arguments.rounds))
    table = rows(measured, subjects[0].name)
    about = meter.about(bundle, arguments.rounds)
    print(heading_of_load(on, about), markdown(table), sep="\n\n")
    write_json(arguments.json, on, about, measurements=measured, rows=table)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
