from __future__ import annotations

import pytest

from encephalon.cli.addresses import etcd_address, minio_address
from encephalon.cli.up import replica_count
from encephalon.core.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:2379", "etcd://127.0.0.1:2379"),
        ("etcd://db:2379", "etcd://db:2379"),
        ("http://db:2379", "etcd://db:2379"),
    ],
)
def test_etcd_addresses(text: str, address: str) -> None:
    assert etcd_address(text) == address


@pytest.mark.parametrize("text", ["db", "db:port", "ftp://db:1", ":1", ""])
def test_what_is_no_etcd_address(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"--etcd 127\.0\.0\.1:2379"):
        etcd_address(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("minio://a:s@h:1/b", "minio://a:s@h:1/b"),
        ("http://a:s@h:1/b", "minio://a:s@h:1/b"),
        ("https://a:s@h/b", "minio://a:s@h/b?secure=1"),
        ("https://a:s@h/b?region=x", "minio://a:s@h/b?region=x&secure=1"),
    ],
)
def test_minio_addresses(text: str, address: str) -> None:
    assert minio_address(text) == address


@pytest.mark.parametrize("text", ["minio://a:topsecret@h:1", "h:1/b", "ftp://a:topsecret@h/b", ""])
def test_what_is_no_minio_address_is_refused_without_showing_the_secret(text: str) -> None:
    with pytest.raises(InvalidInput, match="minio://access:secret@host:port/bucket") as raised:
        minio_address(text)
    assert "topsecret" not in raised.value.message


def test_replicas() -> None:
    assert replica_count("visual=2") == ("visual", 2)
    for text in ("visual", "visual=", "=2", "visual=two", "visual=-1"):
        with pytest.raises(InvalidInput, match="--replicas visual=2"):
            replica_count(text)
