import re

import pytest

from convserve import Client, InvalidRequest
from convserve.address import endpoints, is_local, validate_server
from convserve.arguments import shown
from convserve.channel import channel_options

ADDRESSES = {
    "localhost:50051": [("localhost", 50051)],
    "gpu1:1": [("gpu1", 1)],
    "gpu_1.example.org:65535": [("gpu_1.example.org", 65535)],
    "10.0.0.1:80": [("10.0.0.1", 80)],
    "[::1]:50051": [("::1", 50051)],
    "[fe80::1%eth0]:50051": [("fe80::1%eth0", 50051)],
    "dns:gpu1:50051": [("gpu1", 50051)],
    "dns:///gpu1:50051": [("gpu1", 50051)],
    "dns://8.8.8.8/gpu1:50051": [("gpu1", 50051)],
    "dns:///[::1]:50051": [("::1", 50051)],
    "ipv4:10.0.0.1:1,10.0.0.2:2": [("10.0.0.1", 1), ("10.0.0.2", 2)],
    "ipv6:[::1]:1,[::2]:2": [("::1", 1), ("::2", 2)],
    "unix:/run/convserve.sock": [],
    "unix:///run/convserve.sock": [],
    "unix-abstract:convserve": [],
    "vsock:3:50051": [],
    "xds:///classifier": [],
}

WRONG = {
    "": "",
    "gpu1": "",
    ":50051": "",
    "gpu1:": "",
    "gpu1:http": "",
    "gpu1:50051\n": "",
    "gpu1:50051 ": "",
    " gpu1:50051": "",
    "gpu 1:50051": "",
    "gpu1:50051\0": "",
    "gpu1:5005१": "",  # A digit, but of another script.
    "gpu1:99999": "ports are 1 to 65535",
    "gpu1:0": "ports are 1 to 65535",
    "gpu1:" + "9" * 5000: "ports are 1 to 65535",
    "http://gpu1:50051": "addresses have no http://",
    "grpc://gpu1:50051": "addresses have no grpc://",
    "gpu1:50051/": "",
    "user@gpu1:50051": "",
    "::1:50051": "IPv6 addresses have brackets, [::1]:50051",
    "[::g]:50051": "",
    "[10.0.0.1]:": "",
    "dns:///gpu1": "",
    "ipv4:10.0.0.1:1,": "",
    "unix:": "",
}


@pytest.mark.parametrize("server", ADDRESSES)
def test_address_of_each_form_is_read(server: str) -> None:
    assert validate_server(server) == server
    assert endpoints(server) == ADDRESSES[server]


@pytest.mark.parametrize("server", WRONG, ids=lambda server: repr(server)[:30])
def test_what_is_no_address_is_refused(server: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Client(server)
    assert str(caught.value).startswith(
        f"server: expected HOST:PORT, as localhost:50051, got {shown(server)}"
    )
    assert WRONG[server] in str(caught.value)


@pytest.mark.parametrize("server", [50051, b"gpu1:50051", ("gpu1", 50051)], ids=repr)
def test_what_is_no_text_is_no_address(server: object) -> None:
    with pytest.raises(InvalidRequest, match=f"^server: .*, got {re.escape(repr(server))}$"):
        Client(server)  # type: ignore[arg-type]


LOCAL = [
    *("localhost:1", "LOCALHOST:1", "localhost.:1", "a.localhost:1", "ip6-localhost:1"),
    *("127.0.0.1:1", "127.1.2.3:1", "127.1:1", "0.0.0.0:1"),
    *("[::1]:1", "[::]:1", "[0:0:0:0:0:0:0:1]:1", "[::ffff:127.0.0.1]:1"),
    *("dns:///localhost:1", "dns:localhost:1", "dns://8.8.8.8/localhost:1"),
    *("ipv4:127.0.0.1:1,127.0.0.1:2", "ipv6:[::1]:1", "unix:/a b", "unix-abstract:a"),
]

ELSEWHERE = [
    *("gpu1:1", "localhost.example.org:1", "mylocalhost:1", "10.0.0.1:1", "[::2]:1"),
    *("[::ffff:10.0.0.1]:1", "dns:///gpu1:1", "ipv4:127.0.0.1:1,10.0.0.1:1", "xds:///localhost"),
]


@pytest.mark.parametrize("server", LOCAL + ELSEWHERE)
def test_only_what_is_on_this_machine_goes_without_a_proxy(server: str) -> None:
    assert is_local(validate_server(server)) == (server in LOCAL)
    assert dict(channel_options(server))["grpc.enable_http_proxy"] == int(server in ELSEWHERE)
