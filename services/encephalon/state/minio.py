"""Objects in one bucket of MinIO or any other S3 server."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, TypeVar, cast

from encephalon.core.errors import Conflict, Corrupt, NotFound
from encephalon.state import names
from encephalon.state.minio_bucket import PUT, SHA256, BehindTheEnd, Bucket
from encephalon.state.minio_download import download
from encephalon.state.minio_upload import upload
from encephalon.state.objects import CHUNK_BYTES, ObjectEntry, ObjectInfo, Progress, check_range, unseen
from encephalon.state.opening import opened
from encephalon.state.spool import Digest, finished, spool

__all__ = ["MinioObjects"]

_Result = TypeVar("_Result")

_SPOOL_BYTES: Final = 8 * 1024 * 1024
# The client holds one part in memory; S3 allows 10,000 parts, so objects of up to 156 GiB.
_PART_BYTES: Final = 16 * 1024 * 1024


class MinioObjects:
    def __init__(
        self, address: str, bucket: str, access_key: str, secret_key: str, *, secure: bool, deadline_s: float
    ) -> None:
        """`address` is host:port; the bucket is created when it is not there. `deadline_s` bounds connecting, and each
        wait for bytes.
        """
        self._bucket = Bucket(address, bucket, access_key, secret_key, secure=secure, deadline_s=deadline_s)

    async def __aenter__(self) -> Self:
        try:
            await self._bucket.prepare()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._bucket.close()

    async def put(self, key: str, source: bytes | AsyncIterator[bytes]) -> ObjectInfo:
        # S3 wants size and metadata, so the digest, before the first byte; hence the stop on disk.
        name = names.name_of(key)
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as file:
            digest = await spool(source, cast(BinaryIO, file))
            file.seek(0)
            await self._bucket.run(self._upload, name, file, digest, bounded=False)
        return ObjectInfo(key, digest.size, digest.sha256)

    async def get(self, key: str, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        check_range(start, length)
        name = names.name_of(key)
        if length == 0:
            await self._bucket.run(self._bucket.client.stat_object, self._bucket.name, name, key=key)
            return
        try:
            answer = await opened(
                partial(self._bucket.run, key=key),
                lambda: self._bucket.client.get_object(self._bucket.name, name, start, length or 0),
                lambda answer: answer.close(),
            )
        except BehindTheEnd:
            return
        digest, promised = Digest(), int(answer.headers.get("content-length", -1))
        try:
            while chunk := await finished(self._bucket.run(answer.read, CHUNK_BYTES)):
                await self._bucket.run(digest.update, chunk)
                yield chunk
            if start == 0 and length is None:
                await self._verify(key, digest, answer.headers)
        finally:
            # A connection with unread bytes cannot be used again.
            if digest.size != promised:
                answer.close()
            answer.release_conn()

    async def _verify(self, key: str, digest: Digest, headers: Any) -> None:
        expected = headers.get(SHA256, "")
        if digest.sha256 == expected:
            return
        # Some gateways (JuiceFS) replace bytes and metadata one after the other, so that an answer may mix two objects.
        found = await self._bucket.run(self._bucket.client.stat_object, self._bucket.name, names.name_of(key), key=key)
        present = found.metadata or {}
        if present.get(PUT) == headers.get(PUT):
            put = expected or "one without digest"
            raise Corrupt(f"{key!r} does not match its digest: {digest.sha256} was read, {put} was put", key=key)
        if present.get(SHA256) != digest.sha256:
            raise Conflict(f"{key!r} was replaced while it was read; read it again", key=key)

    async def upload(self, key: str, path: Path, *, sha256: str, progress: Progress = unseen) -> ObjectInfo:
        return await upload(self._bucket, key, path, sha256, progress)

    async def download(self, key: str, path: Path, *, progress: Progress = unseen) -> ObjectInfo:
        return await download(self._bucket, key, path, progress)

    async def stat(self, key: str) -> ObjectInfo:
        found = await self._bucket.run(self._bucket.client.stat_object, self._bucket.name, names.name_of(key), key=key)
        return ObjectInfo(key, int(found.size or 0), (found.metadata or {}).get(SHA256, ""))

    async def list(self, prefix: str) -> AsyncGenerator[ObjectEntry, None]:
        found = self._bucket.client.list_objects(self._bucket.name, prefix=names.prefix_of(prefix), recursive=True)
        while batch := await self._bucket.run(_take, found, 1000):
            for item in batch:
                key = names.key_of(item.object_name)
                if key is not None and key.startswith(prefix):
                    yield ObjectEntry(key, int(item.size or 0))

    async def delete(self, key: str) -> None:
        with contextlib.suppress(NotFound):
            await self._bucket.run(self._bucket.client.remove_object, self._bucket.name, names.name_of(key), key=key)

    def _upload(self, name: str, file: BinaryIO, digest: Digest) -> None:
        self._bucket.uploads.put_object(
            self._bucket.name,
            name,
            file,
            digest.size,
            part_size=_PART_BYTES,
            metadata={"sha256": digest.sha256, "put": uuid.uuid4().hex},
            num_parallel_uploads=1,
        )


def _take(found: Iterator[_Result], count: int) -> list[_Result]:
    return list(itertools.islice(found, count))
