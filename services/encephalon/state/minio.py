"""Objects in one bucket of MinIO or any other S3 server. The client blocks, so it works in threads, of which there are
few.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Final, Self, TypeVar, cast

from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3 import PoolManager, Retry
from urllib3.exceptions import HTTPError, IncompleteRead
from urllib3.util import Timeout

from encephalon.core.errors import Conflict, Corrupt, Denied, EncephalonError, FailedPrecondition, NotFound, Unavailable
from encephalon.state import names
from encephalon.state.objects import CHUNK_BYTES, ObjectEntry, ObjectInfo, check_range
from encephalon.state.spool import Digest, spool

__all__ = ["MinioObjects"]

_Result = TypeVar("_Result")

_THREADS: Final = 8
_SPOOL_BYTES: Final = 8 * 1024 * 1024
# The client holds one part in memory; S3 allows 10,000 parts, so objects of up to 156 GiB.
_PART_BYTES: Final = 16 * 1024 * 1024
# A server answers a part when it is safe on its disks, which may take long where a question may not.
_SAFE_S: Final = 30.0
_SHA256: Final = "x-amz-meta-sha256"
_PUT: Final = "x-amz-meta-put"
"""Another with every put, so that an object is told from one of the same bytes that took its place."""
_DENIED: Final = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled"}
_ABSENT: Final = {"NoSuchKey", "NoSuchObject", "ResourceNotFound"}


class MinioObjects:
    def __init__(
        self, address: str, bucket: str, access_key: str, secret_key: str, *, secure: bool, deadline_s: float
    ) -> None:
        """`address` is host:port; the bucket is created when it is not there. `deadline_s` bounds connecting, and each
        wait for bytes.
        """
        self._where = f"{address}/{bucket}"
        self._bucket = bucket
        self._deadline_s = deadline_s
        self._pools = [_pool(deadline_s, deadline_s), _pool(deadline_s, _SAFE_S)]
        self._client, self._uploads = (
            Minio(address, access_key, secret_key, secure=secure, region="us-east-1", http_client=pool)
            for pool in self._pools
        )
        self._turns = asyncio.Semaphore(_THREADS)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="minio")

    async def __aenter__(self) -> Self:
        try:
            await self._run(self._prepare)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._threads.shutdown(wait=False)
        for pool in self._pools:
            pool.clear()

    async def put(self, key: str, source: bytes | AsyncIterator[bytes]) -> ObjectInfo:
        # S3 wants size and metadata, so the digest, before the first byte; hence the stop on disk.
        name = names.name_of(key)
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as file:
            digest = await spool(source, cast(BinaryIO, file))
            file.seek(0)
            await self._run(self._upload, name, file, digest, bounded=False)
        return ObjectInfo(key, digest.size, digest.sha256)

    async def get(self, key: str, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        check_range(start, length)
        name = names.name_of(key)
        if length == 0:
            await self._run(self._client.stat_object, self._bucket, name, key=key)
            return
        try:
            answer = await self._run(self._client.get_object, self._bucket, name, start, length or 0, key=key)
        except _BehindTheEnd:
            return
        digest, promised = Digest(), int(answer.headers.get("content-length", -1))
        try:
            while chunk := await self._run(answer.read, CHUNK_BYTES):
                await self._run(digest.update, chunk)
                yield chunk
            if start == 0 and length is None:
                await self._verify(key, digest, answer.headers)
        finally:
            # A connection with unread bytes cannot be used again.
            if digest.size != promised:
                answer.close()
            answer.release_conn()

    async def _verify(self, key: str, digest: Digest, headers: Any) -> None:
        expected = headers.get(_SHA256, "")
        if digest.sha256 == expected:
            return
        # Some gateways (JuiceFS) replace bytes and metadata one after the other, so that an answer may mix two objects.
        found = await self._run(self._client.stat_object, self._bucket, names.name_of(key), key=key)
        present = found.metadata or {}
        if present.get(_PUT) == headers.get(_PUT):
            put = expected or "one without digest"
            raise Corrupt(f"{key!r} does not match its digest: {digest.sha256} was read, {put} was put", key=key)
        if present.get(_SHA256) != digest.sha256:
            raise Conflict(f"{key!r} was replaced while it was read; read it again", key=key)

    async def stat(self, key: str) -> ObjectInfo:
        found = await self._run(self._client.stat_object, self._bucket, names.name_of(key), key=key)
        return ObjectInfo(key, int(found.size or 0), (found.metadata or {}).get(_SHA256, ""))

    async def list(self, prefix: str) -> AsyncGenerator[ObjectEntry, None]:
        found = self._client.list_objects(self._bucket, prefix=names.prefix_of(prefix), recursive=True)
        while batch := await self._run(_take, found, 1000):
            for item in batch:
                key = names.key_of(item.object_name)
                if key is not None and key.startswith(prefix):
                    yield ObjectEntry(key, int(item.size or 0), item.last_modified)

    async def delete(self, key: str) -> None:
        with contextlib.suppress(NotFound):
            await self._run(self._client.remove_object, self._bucket, names.name_of(key), key=key)

    def _prepare(self) -> None:
        if self._client.bucket_exists(self._bucket):
            return
        try:
            self._client.make_bucket(self._bucket)
        except S3Error as error:
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def _upload(self, name: str, file: BinaryIO, digest: Digest) -> None:
        self._uploads.put_object(
            self._bucket,
            name,
            file,
            digest.size,
            part_size=_PART_BYTES,
            metadata={"sha256": digest.sha256, "put": uuid.uuid4().hex},
            num_parallel_uploads=1,
        )

    async def _run(self, step: Callable[..., _Result], *args: object, key: str = "", bounded: bool = True) -> _Result:
        """Runs a blocking step in a thread; errors come as ours. An upload is bounded wait by wait, not as a whole."""
        try:
            async with self._turns:
                async with asyncio.timeout(3 * self._deadline_s if bounded else None):
                    return await asyncio.get_running_loop().run_in_executor(self._threads, step, *args)
        except EncephalonError:
            raise
        except S3Error as error:
            raise self._translated(error, key) from error
        except ServerError as error:
            raise Unavailable(f"{self._where} failed with status {error.status_code}", where=self._where) from error
        except (InvalidResponseError, MinioException, ValueError) as error:
            raise FailedPrecondition(
                f"{self._where} does not answer as an S3 server: {error}", where=self._where
            ) from error
        except TimeoutError as error:
            raise Unavailable(
                f"{self._where} did not answer within {3 * self._deadline_s:g} s", where=self._where
            ) from error
        except (HTTPError, OSError) as error:
            if any(isinstance(cause, IncompleteRead) for cause in (error, *error.args)):
                raise Conflict(f"an object of {self._where} was cut while it was read; read it again") from error
            raise Unavailable(f"{self._where} is out of reach: {_sentence(error)}", where=self._where) from error
        except RuntimeError as error:
            raise Unavailable(f"the store {self._where} is closed", where=self._where) from error

    def _translated(self, error: S3Error, key: str) -> EncephalonError:
        if error.code in _ABSENT:
            return NotFound(f"there is no object {key!r} in {self._where}", key=key)
        if error.code == "InvalidRange":
            return _BehindTheEnd("the range lies behind the end of the object")
        if error.code in _DENIED:
            return Denied(f"{self._where} denies access: {error.message}", where=self._where)
        if error.code == "NoSuchBucket":
            return FailedPrecondition(f"the bucket of {self._where} has been removed", where=self._where)
        return Unavailable(f"{self._where} failed with {error.code}: {error.message}", where=self._where)


class _BehindTheEnd(FailedPrecondition):
    """What S3 calls an invalid range; for us it is an empty one."""


def _sentence(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(": ")[2]


def _pool(connect_s: float, read_s: float) -> PoolManager:
    # It does not block when connections run out: a reader holds one from chunk to chunk, and those who wait for it hold
    # the threads. More than it keeps are opened and closed.
    timeout, retries = Timeout(connect=connect_s, read=read_s), Retry(total=1, backoff_factor=0.1)
    return PoolManager(num_pools=2, maxsize=4 * _THREADS, timeout=timeout, retries=retries)


def _take(found: Iterator[_Result], count: int) -> list[_Result]:
    return list(itertools.islice(found, count))
