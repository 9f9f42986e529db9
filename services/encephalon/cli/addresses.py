"""Addresses of stores as they are typed, made into the URLs that `state` takes."""

from __future__ import annotations

from urllib.parse import urlsplit

from encephalon.core.errors import InvalidInput

__all__ = ["etcd_address", "minio_address"]


def etcd_address(text: str) -> str:
    address = text if "://" in text else f"etcd://{text}"
    parts = urlsplit(address.replace("http://", "etcd://", 1))
    try:
        usable = parts.scheme == "etcd" and parts.hostname and parts.port
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise InvalidInput(f"--etcd {text} is no address; write it as --etcd 127.0.0.1:2379")
    return parts.geturl()


def minio_address(text: str) -> str:
    """`http://` and `https://` are understood too, because that is how S3 addresses are usually written."""
    address = text
    if text.startswith("https://"):
        address = f"minio://{text.removeprefix('https://')}{'&' if '?' in text else '?'}secure=1"
    elif text.startswith("http://"):
        address = f"minio://{text.removeprefix('http://')}"
    parts = urlsplit(address)
    if parts.scheme != "minio" or not parts.hostname or not parts.path.strip("/"):
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # without the secret
        raise InvalidInput(f"--minio {shown} is no address; write it as minio://access:secret@host:port/bucket")
    return address
