"""A file on its way into a bucket: in parts, several at once, going on where an earlier attempt has stopped.

S3 keeps the parts of an unfinished upload and lists them with their MD5, but not the metadata that the upload began
with. So its first part is a mark, far behind the others and left out when they are put together: its MD5 tells whose
upload it is, and of which bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from minio.datatypes import Part
from minio.error import S3Error

from encephalon.core.errors import InvalidInput, Unavailable
from encephalon.state import names
from encephalon.state.minio_bucket import PUT, SHA256, Bucket
from encephalon.state.objects import ObjectInfo, Progress
from encephalon.state.opening import opened
from encephalon.state.source import Source
from encephalon.state.spool import finished

__all__ = ["upload"]

# Four at once stay below 64 MiB; S3 wants at least 5 MiB.
PART_BYTES: Final = 8 * 1024 * 1024
# S3's highest number of a part. A larger file has larger parts.
_MARK_NUMBER: Final = 10_000
# An upload whose last part is as old as this has been given up. Others may still run, on machines whose clocks differ.
STALE: Final = timedelta(hours=1)
# A server that cannot list unfinished uploads, or does not let us, is none to resume on.
_CANNOT_LIST: Final = {"NotImplemented", "MethodNotAllowed", "AccessDenied"}


async def upload(bucket: Bucket, key: str, path: Path, sha256: str, progress: Progress) -> ObjectInfo:
    """As `Objects.upload`."""
    name = names.name_of(key)
    source = await opened(bucket.run, lambda: Source(path, sha256), Source.drop)
    try:
        if source.size <= PART_BYTES:
            await finished(bucket.run(_put, bucket, name, source, bounded=False))
            progress(source.size)
        else:
            await _Upload(bucket, name, source, progress).run()
    finally:
        source.drop()
    return ObjectInfo(key, source.size, sha256)


def _put(bucket: Bucket, name: str, source: Source) -> None:
    buffer = bytearray(source.size)
    source.read(memoryview(buffer))
    source.verify()
    metadata: Any = {"sha256": source.sha256, "put": uuid.uuid4().hex}
    bucket.uploads.put_object(bucket.name, name, io.BytesIO(buffer), source.size, metadata=metadata)


class _Upload:
    """The client has no public methods for the parts of an upload, only one that sends all of them; its internal ones
    are used here, and nowhere else.
    """

    def __init__(self, bucket: Bucket, name: str, source: Source, progress: Progress) -> None:
        self._bucket = bucket
        self._name = name
        self._source = source
        self._progress = progress
        self._done = 0
        self._part_bytes = max(PART_BYTES, -(-source.size // (_MARK_NUMBER - 1)))
        self._mark = f"{source.sha256} {self._part_bytes} {source.owner}".encode()
        self._upload_id = ""
        self._sent: dict[int, Part] = {}
        self._spare: list[bytearray] = []

    async def run(self) -> None:
        present = await self._bucket.run(self._begin, bounded=False)
        try:
            await self._send_all(present)
            await self._bucket.run(self._source.verify)
        except InvalidInput:
            await self._bucket.run(self._abort, self._upload_id)
            raise
        await self._bucket.run(self._complete, bounded=False)

    async def _send_all(self, present: dict[int, Part]) -> None:
        try:
            async with asyncio.TaskGroup() as sending:
                for number in range(1, -(-self._source.size // self._part_bytes) + 1):
                    await self._bucket.parts.acquire()
                    part = sending.create_task(self._part(number, await self._read(number), present.get(number)))
                    part.add_done_callback(lambda _: self._bucket.parts.release())
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]
            raise first from first.__cause__

    async def _read(self, number: int) -> memoryview:
        """The next part, in order: so the digest of all comes to be while others are sent."""
        left = self._source.size - (number - 1) * self._part_bytes
        buffer = self._spare.pop() if self._spare else bytearray(self._part_bytes)
        part = memoryview(buffer)[: min(left, self._part_bytes)]
        try:
            await finished(self._bucket.run(self._source.read, part, bounded=False))
        except BaseException:
            self._bucket.parts.release()
            raise
        return part

    async def _part(self, number: int, data: memoryview, present: Part | None) -> None:
        self._source.hold()
        self._sent[number] = await self._bucket.run_part(self._send, number, data, present, ended=self._source.drop)
        self._spare.append(data.obj)  # type: ignore[arg-type]
        self._done += len(data)
        self._progress(self._done)

    def _send(self, number: int, data: memoryview, present: Part | None) -> Part:
        if present is not None and present.size == len(data) and present.etag == _md5(data):
            return present
        client: Any = self._bucket.uploads
        etag = client._upload_part(self._bucket.name, self._name, data, None, self._upload_id, number)
        return Part(number, etag)

    def _begin(self) -> dict[int, Part]:
        """The parts that are there already, of an upload that goes on or a new one."""
        for upload in self._unfinished():
            parts = self._parts(upload.upload_id)
            mark = parts.pop(_MARK_NUMBER, None)
            if mark is not None and mark.etag == _md5(self._mark):
                self._upload_id = upload.upload_id
                return parts
            seen = [part.last_modified for part in parts.values()] + ([mark.last_modified] if mark else [])
            if datetime.now(UTC) - max([upload.initiated_time, *filter(None, seen)]) > STALE:
                self._abort(upload.upload_id)
        client: Any = self._bucket.uploads
        headers = {SHA256: self._source.sha256, PUT: uuid.uuid4().hex}
        self._upload_id = client._create_multipart_upload(self._bucket.name, self._name, headers)
        client._upload_part(self._bucket.name, self._name, self._mark, None, self._upload_id, _MARK_NUMBER)
        return {}

    def _unfinished(self) -> list[Any]:
        client: Any = self._bucket.client
        try:
            found = client._list_multipart_uploads(self._bucket.name, prefix=self._name).uploads
        except S3Error as error:
            if error.code in _CANNOT_LIST:
                return []
            raise
        # The client decodes the names, whether the server has encoded them or not.
        return [one for one in found if one.object_name in (self._name, unquote(self._name))]

    def _parts(self, upload_id: str) -> dict[int, Part]:
        client: Any = self._bucket.client
        parts: dict[int, Part] = {}
        marker: str | None = ""
        while marker is not None:
            try:
                page = client._list_parts(self._bucket.name, self._name, upload_id, part_number_marker=marker)
            except S3Error as error:
                if error.code == "NoSuchUpload":
                    return {}  # finished or given up by another process since it was listed
                raise
            parts |= {part.part_number: part for part in page.parts}
            following = page.next_part_number_marker
            marker = following if page.is_truncated and following != marker else None
        return parts

    def _abort(self, upload_id: str) -> None:
        client: Any = self._bucket.client
        try:
            client._abort_multipart_upload(self._bucket.name, self._name, upload_id)
        except S3Error as error:
            if error.code != "NoSuchUpload":
                raise

    def _complete(self) -> None:
        client: Any = self._bucket.uploads
        parts = [self._sent[number] for number in sorted(self._sent)]
        done = client._complete_multipart_upload(self._bucket.name, self._name, self._upload_id, parts)
        if not done.etag:
            # S3 may begin its answer before it knows, and then say in it that it has failed.
            raise Unavailable(f"{self._bucket.where} could not put the parts of an object together; upload it again")


def _md5(data: bytes | memoryview) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
