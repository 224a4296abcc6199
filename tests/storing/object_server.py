"""A real S3 server on the loopback interface: Ceph's RADOS Gateway, from Debian's packages, with its data in memory.

    apt-get install --no-install-recommends radosgw ceph-mon ceph-osd

One monitor and one storage daemon hold the objects, so the gateway can be killed and started again as a server would
be, with everything that it had acknowledged. It checks signatures, keys and clocks, enforces quotas, and decides a
conditional put (If-None-Match: *) atomically. Starting takes about 12 seconds, 2 of CPU time, and 150 MB.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")
ACCESS_KEY = "TESTERSACCESSKEY0001"
SECRET_KEY = "testers/secret/key/0123456789abcdefghijk"


def missing() -> str:
    """The first program that is not installed; empty if the server can be started."""
    return next((program for program in PROGRAMS if shutil.which(program) is None), "")


class ObjectServer:
    """The server's processes; started by `start`, all ended by `stop`."""

    def __init__(self, folder: Path) -> None:
        """Keep everything in this folder, which should be on a short path."""
        self.folder, self.port = folder, _free_port()
        self._monitor = _free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._gateway: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the gateway listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start everything; RuntimeError with the last output if the gateway does not answer in a minute."""
        for name in ("run", "osd", "rgw"):
            (self.folder / name).mkdir(parents=True)
        cluster = str(uuid.uuid4())
        address = f"v2:127.0.0.1:{self._monitor}"
        self._configuration.write_text(_CONFIGURATION.format(
            cluster=cluster, address=address, folder=self.folder, port=self.port
        ))  # fmt: skip
        self._run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", f"[{address}]", f"{self.folder}/monmap")
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", f"{self.folder}/monmap")
        self._processes.append(self._begin("ceph-mon", "-i", "a", "-f"))
        disk = str(uuid.uuid4())
        self._run("ceph", "osd", "new", disk, "0")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self._processes.append(self._begin("ceph-osd", "-i", "0", "-f"))
        self._run("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=localhost")
        self.start_gateway()
        key = ("--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY)
        self._run("radosgw-admin", "-n", "client.rgw", "user", "create", "--uid", "tester", "--display-name", "t", *key)
        reader = ("--access-key", f"{ACCESS_KEY[:-4]}READ", "--secret-key", SECRET_KEY)
        self._run(
            "radosgw-admin", "-n", "client.rgw", "user", "create", "--uid", "other", "--display-name", "o", *reader
        )

    def start_gateway(self) -> None:
        """Start the gateway and wait until it answers."""
        self._gateway = self._begin("radosgw", "-n", "client.rgw", "-f")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/")
                if connection.getresponse().status == 200:
                    return
            if self._gateway.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError("radosgw does not answer:\n" + (self.folder / "output").read_text()[-2000:])

    def kill_gateway(self) -> None:
        """SIGKILL, as a power failure or the kernel would."""
        assert self._gateway is not None
        self._gateway.kill()
        self._gateway.wait()

    def set_quota(self, size: int | None) -> None:
        """Limit the bytes that the tester may store in a bucket; None for no limit."""
        words = ("radosgw-admin", "-n", "client.rgw", "quota")
        if size is not None:
            self._run(*words, "set", "--quota-scope=bucket", "--uid", "tester", "--max-size", str(size))
        self._run(*words, "disable" if size is None else "enable", "--quota-scope=bucket", "--uid", "tester")

    def stop(self) -> None:
        """End all processes that were started here."""
        for process in (self._gateway, *reversed(self._processes)):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def environment(self, folder: Path, *, url: str = "") -> dict[str, str]:
        """The environment of a client process whose home, mirror and caches are in this folder."""
        ours = ("AWS", "RESURGENCE", "CEPH", "BOTO")
        env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        env |= {"AWS_ENDPOINT_URL": url or self.url, "AWS_DEFAULT_REGION": "us-east-1"}
        env |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        env |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
        return env | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    @property
    def _configuration(self) -> Path:
        return self.folder / "ceph.conf"

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [program, "-c", str(self._configuration), *words], capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(words[:4])}: {done.stderr[-1000:]}")

    def _begin(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                [program, "-c", str(self._configuration), *words],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


_CONFIGURATION = """
[global]
fsid = {cluster}
mon host = [{address}/0]
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms bind ipv6 = false
public addr = 127.0.0.1
run dir = {folder}/run
admin socket =
log file = /dev/null
mon cluster log file = /dev/null
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 0
osd objectstore = memstore
memstore device bytes = 4294967296
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
[client.rgw]
ms mon client mode = crc
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw thread pool size = 64
rgw cache enabled = false
rgw bucket quota ttl = 0
rgw bucket quota cache size = 0
"""
