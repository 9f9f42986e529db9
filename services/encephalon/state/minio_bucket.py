"""One bucket of an S3 server: the client in its few threads, with a bound on every wait and our errors for its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3 import PoolManager, Retry
from urllib3.exceptions import HTTPError, IncompleteRead
from urllib3.util import Timeout

from encephalon.core.errors import Conflict, Denied, EncephalonError, FailedPrecondition, NotFound, Unavailable

__all__ = ["PARTS_AT_ONCE", "PUT", "SHA256", "BehindTheEnd", "Bucket"]

_Result = TypeVar("_Result")

_THREADS: Final = 8
# Parts of files on their way, of all files together. Each holds its bytes in memory.
PARTS_AT_ONCE: Final = 4
# A server answers a part when it is safe on its disks, which may take long where a question may not.
_SAFE_S: Final = 30.0
SHA256: Final = "x-amz-meta-sha256"
PUT: Final = "x-amz-meta-put"
"""Another with every put, so that an object is told from one of the same bytes that took its place."""
_DENIED: Final = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled"}
_ABSENT: Final = {"NoSuchKey", "NoSuchObject", "ResourceNotFound"}


class Bucket:
    def __init__(
        self, address: str, name: str, access_key: str, secret_key: str, *, secure: bool, deadline_s: float
    ) -> None:
        """`address` is host:port. `deadline_s` bounds connecting, and each wait for bytes."""
        self.name = name
        self.where = f"{address}/{name}"
        self._deadline_s = deadline_s
        self._pools = [_pool(deadline_s, deadline_s), _pool(deadline_s, _SAFE_S)]
        self.client, self.uploads = (
            Minio(address, access_key, secret_key, secure=secure, region="us-east-1", http_client=pool)
            for pool in self._pools
        )
        """The same, but that `uploads` waits longer for an answer."""
        self.parts = asyncio.Semaphore(PARTS_AT_ONCE)
        """Taken by each part that has a buffer in memory."""
        self._turns = asyncio.Semaphore(_THREADS)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="minio")
        # Parts have threads of their own: small questions must not wait until a large file has passed.
        self._part_threads = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="minio-part")

    async def prepare(self) -> None:
        """Creates the bucket when it is not there."""
        await self.run(self._prepare)

    def close(self) -> None:
        self._threads.shutdown(wait=False)
        self._part_threads.shutdown(wait=False)
        for pool in self._pools:
            pool.clear()

    async def run(self, step: Callable[..., _Result], *args: object, key: str = "", bounded: bool = True) -> _Result:
        """Runs a blocking step in a thread; errors come as ours. An upload is bounded wait by wait, not as a whole."""
        try:
            async with self._turns, asyncio.timeout(3 * self._deadline_s if bounded else None):
                return await asyncio.get_running_loop().run_in_executor(self._threads, step, *args)
        except Exception as error:
            raise self._ours(error, key) from error

    async def run_part(
        self,
        step: Callable[..., _Result],
        *args: object,
        key: str = "",
        ended: Callable[[], None] = lambda: None,
    ) -> _Result:
        """Runs what takes as long as a part takes; `ended` is called when its thread is done, even after a cancel."""
        try:
            future: Future[_Result] = self._part_threads.submit(step, *args)
        except RuntimeError as error:
            ended()
            raise self._ours(error, key) from error
        future.add_done_callback(lambda _: ended())
        try:
            return await asyncio.wrap_future(future)
        except Exception as error:
            raise self._ours(error, key) from error

    def _prepare(self) -> None:
        if self.client.bucket_exists(self.name):
            return
        try:
            self.client.make_bucket(self.name)
        except S3Error as error:
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def _ours(self, error: Exception, key: str) -> Exception:
        match error:
            case EncephalonError():
                return error
            case S3Error():
                return self._translated(error, key)
            case ServerError():
                return Unavailable(f"{self.where} failed with status {error.status_code}", where=self.where)
            case InvalidResponseError() | MinioException() | ValueError():
                return FailedPrecondition(f"{self.where} does not answer as an S3 server: {error}", where=self.where)
            case TimeoutError():
                return Unavailable(f"{self.where} did not answer within {3 * self._deadline_s:g} s", where=self.where)
            case HTTPError() | OSError():
                if any(isinstance(cause, IncompleteRead) for cause in (error, *error.args)):
                    return Conflict(f"an object of {self.where} was cut while it was read; read it again")
                return Unavailable(f"{self.where} is out of reach: {_sentence(error)}", where=self.where)
            case RuntimeError():
                return Unavailable(f"the store {self.where} is closed", where=self.where)
        return error

    def _translated(self, error: S3Error, key: str) -> EncephalonError:
        if error.code in _ABSENT:
            return NotFound(f"there is no object {key!r} in {self.where}", key=key)
        if error.code == "InvalidRange":
            return BehindTheEnd("the range lies behind the end of the object")
        if error.code in _DENIED:
            return Denied(f"{self.where} denies access: {error.message}", where=self.where)
        if error.code == "NoSuchBucket":
            return FailedPrecondition(f"the bucket of {self.where} has been removed", where=self.where)
        return Unavailable(f"{self.where} failed with {error.code}: {error.message}", where=self.where)


class BehindTheEnd(FailedPrecondition):
    """What S3 calls an invalid range; for us it is an empty one."""


def _sentence(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(": ")[2]


def _pool(connect_s: float, read_s: float) -> PoolManager:
    # It does not block when connections run out: a reader holds one from chunk to chunk, and those who wait for it hold
    # the threads. More than it keeps are opened and closed.
    timeout, retries = Timeout(connect=connect_s, read=read_s), Retry(total=1, backoff_factor=0.1)
    return PoolManager(num_pools=2, maxsize=4 * _THREADS, timeout=timeout, retries=retries)
