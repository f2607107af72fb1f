"""Runs a command on a network of its own, and writes down every name that it looks up.

    unshare --user --map-root-user --net --mount python -m tests.system.resolver FILE COMMAND...

The network has 127.0.0.1 and nothing else. The resolver there answers that no name exists. FILE
gets a line for each question; the exit status is the command's.
"""

import fcntl
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

DNS = ("127.0.0.1", 53)
HEADER = 12  # bytes of a DNS message before its question; RFC 1035, 4.1
NO_SUCH_NAME = b"\x81\x83"  # flags of an answer: recursion available, NXDOMAIN
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h


def main(file: str, *command: str) -> int:
    """Returns the command's exit status."""
    _raise_loopback()
    _settle("/etc/resolv.conf", f"nameserver {DNS[0]}\n")
    _settle("/etc/nsswitch.conf", "hosts: files dns\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, Path(file).open("w") as asked:
        server.bind(DNS)

        def answer() -> None:
            while True:
                question, client = server.recvfrom(4096)
                print(name_in(question), file=asked, flush=True)
                answer = question[:2] + NO_SUCH_NAME + question[4:6] + bytes(6) + question[HEADER:]
                server.sendto(answer, client)

        threading.Thread(target=answer, daemon=True).start()
        return subprocess.run(command, check=False).returncode


def name_in(question: bytes) -> str:
    """Returns the name that a DNS message asks for."""
    labels, at = [], HEADER
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(labels)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP) + bytes(22))


def _settle(path: str, content: str) -> None:
    """Lays another content over a file, for this process and its children only."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf", delete=False) as made:
        made.write(content)
    Path(made.name).chmod(0o644)
    where = Path(path).resolve()
    if where.exists():
        subprocess.run(["mount", "--bind", made.name, str(where)], check=True)
    Path(made.name).unlink()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
