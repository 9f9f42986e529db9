from __future__ import annotations

import socket

import pytest

from encephalon.core.errors import EncephalonError, FailedPrecondition, InvalidInput
from encephalon.local.ports import free_address


def test_port_0_becomes_a_free_one() -> None:
    host, _, port = free_address("127.0.0.1:0").rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(FailedPrecondition, match=f"{address} is in use by another program"):
            free_address(address)


@pytest.mark.parametrize(
    ("listen", "kind"),
    [
        ("9000", InvalidInput),
        ("127.0.0.1", InvalidInput),
        ("127.0.0.1:", InvalidInput),
        ("127.0.0.1:port", InvalidInput),
        ("127.0.0.1:70000", InvalidInput),
        ("no.such.host.invalid:9000", InvalidInput),
        ("192.0.2.1:9000", FailedPrecondition),
    ],
)
def test_what_cannot_be_listened_on_is_a_sentence(listen: str, kind: type[EncephalonError]) -> None:
    with pytest.raises(kind) as raised:
        free_address(listen)
    assert listen.partition(":")[0] in raised.value.message
