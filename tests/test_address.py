import errno
import socket

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.address import Address, refused, split

ADDRESS = TypeAdapter(Address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("0.0.0.0:5044", ("0.0.0.0", 5044)),
        (":5044", (None, 5044)),
        ("[::1]:1", ("::1", 1)),
        ("a.b:65535", ("a.b", 65535)),
    ],
)
def test_addresses(address, expected):
    assert split(ADDRESS.validate_python(address)) == expected


@pytest.mark.parametrize("address", ["5044", "::1:5044", "a b:1", "x:", "http://x:1", "a:1:2", ":999999"])
def test_what_is_no_address(address):
    with pytest.raises(ValidationError):
        ADDRESS.validate_python(address)


def test_a_port_that_there_is_not_would_be_another_one():
    with pytest.raises(ValidationError, match="there is no port 65536: the last one is 65535"):
        ADDRESS.validate_python("localhost:65536")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            OSError(errno.EADDRINUSE, "error while attempting to bind on …"),
            "Address already in use (by which program, `ss -lntup` says)",
        ),
        (
            OSError(errno.EACCES, "x"),
            "Permission denied (a port below 1024 is for root, or takes the capability CAP_NET_BIND_SERVICE)",
        ),
        (OSError(errno.ENETUNREACH, "x"), "Network is unreachable"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (OSError("could not bind on any address out of []"), "could not bind on any address out of []"),
    ],
)
def test_why_an_address_can_not_be_had(error, reason):
    assert refused(error) == reason
