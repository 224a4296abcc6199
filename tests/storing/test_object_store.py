"""A store in a bucket of a real S3 server: shared by machines, through a bad network, refused, full, killed midway."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness import cli
from resurgence_harness.errors import Corrupt, ResurgenceError, Unreachable, Unwritable, UserError
from resurgence_harness.storing import Artifact, Store, StoreWarning, check_usable, keeping, key
from resurgence_harness.storing.remote import files as remote_files
from resurgence_harness.storing.remote import leases, retrying
from resurgence_harness.storing.remote.files import Files
from tests.storing.faulty_network import Fault, FaultyNetwork
from tests.storing.object_server import ACCESS_KEY, SECRET_KEY, ObjectServer, missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        missing() != "", reason=f"{missing()} is not installed: apt-get install radosgw ceph-mon ceph-osd"
    ),
]
KEY = key("thing", "one")
PART = 5 << 20
"""The smallest part that S3 accepts."""


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    """The server of this process."""
    with tempfile.TemporaryDirectory() as folder:
        server = ObjectServer(Path(folder) / "s")
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="module")
def proxy(server: ObjectServer) -> Iterator[FaultyNetwork]:
    """One address for all tests: a client for a new one takes half a second of CPU time."""
    with FaultyNetwork(server.port) as network:
        yield network


@pytest.fixture
def network(proxy: FaultyNetwork) -> Iterator[FaultyNetwork]:
    """A proxy before the server, without faults until a test chooses one."""
    proxy.requests.clear()
    yield proxy
    proxy.fault = lambda method, path: None


@pytest.fixture(autouse=True)
def environment(
    server: ObjectServer,
    network: FaultyNetwork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[dict[str, str]]:
    """This process is a client with credentials, through the proxy; none of its output or files contains a secret."""
    env = server.environment(tmp_path, url=network.url)
    for name in list(os.environ):
        if name.startswith(("AWS", "RESURGENCE")):
            monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote_files, "PART", PART)
    monkeypatch.setattr(retrying, "PAUSES", tuple(pause / 20 for pause in retrying.PAUSES))
    yield env
    output = "".join(capfd.readouterr())
    assert not any(secret in output for secret in (SECRET_KEY, ACCESS_KEY))
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET_KEY.encode() not in path.read_bytes(), path


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """A new bucket's store."""
    import s3fs

    bucket = f"b{abs(hash(request.node.name)) % 10**12}"
    s3fs.S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}/store"


class Build:
    """A build that counts its calls, and writes one file of this size and a small one."""

    def __init__(self, size: int = 100, *, takes: float = 0.0) -> None:
        self.size, self.takes, self.times, self.begun = size, takes, 0, threading.Event()

    def __call__(self, folder: Path) -> Mapping[str, Any]:
        """Write them."""
        self.times += 1
        self.begun.set()
        time.sleep(self.takes)
        (folder / "large").write_bytes(os.urandom(self.size))
        (folder / "small").write_bytes(b"small")
        return {}


def make(store: Store, build: Callable[[Path], Mapping[str, Any]], *, name: str = KEY, **inputs: str) -> Artifact:
    """The artifact, built if it is missing."""
    return store.make(name, kind="thing", label="a thing", inputs=inputs, build=build)


def machine(url: str, tmp_path: Path, name: str) -> Store:
    """The store as another machine has it, with a mirror of its own."""
    (tmp_path / name).mkdir(exist_ok=True)
    return Store(url, mirror=tmp_path / name)


def sentence_of(error: BaseException) -> str:
    """An error's message; it contains no secret, and is a sentence with facts."""
    text = str(error)
    assert SECRET_KEY not in text and ACCESS_KEY not in text and "Traceback" not in text
    return text


def command(*words: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit code and output of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["resurgence", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    output = "".join(capfd.readouterr())
    assert SECRET_KEY not in output and ACCESS_KEY not in output and "Traceback" not in output
    return int(str(left.value.code or 0)), output


def other_process(code: str, *words: str, env: Mapping[str, str]) -> subprocess.Popen[str]:
    """A client in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *words], env=dict(env), stdout=subprocess.PIPE, text=True
    )


# What a shared store does


def test_what_one_machine_built_another_reads(url: str, tmp_path: Path) -> None:
    """In parts, with every byte checked; nothing is left of the lease, and the layout is recorded."""
    build = Build(2 * PART + 12345)  # in three parts
    made = make(machine(url, tmp_path, "one"), build)
    there = machine(url, tmp_path, "two")
    opened = make(there, build)
    assert build.times == 1 and opened.digest == made.digest
    assert (opened.path / "large").read_bytes() == (made.path / "large").read_bytes()
    assert there.remote is not None
    names = there.remote.files.names(there.remote.files.root)
    assert sorted(names) == [KEY[:2], "changes", "packs", "store.json", "used"]


def test_two_machines_build_an_artifact_once(url: str, tmp_path: Path) -> None:
    """Eight machines want it at the same moment: one builds, the others wait and download."""
    build = Build(takes=0.5)
    with ThreadPoolExecutor(8) as machines:
        made = list(machines.map(lambda name: make(machine(url, tmp_path, f"m{name}"), build), range(8)))
    assert build.times == 1 and len({one.digest for one in made}) == 1


def test_a_conditional_write_has_one_winner(url: str) -> None:
    """Of sixteen clients that create the same file at once, exactly one is told that it did, five times."""
    files = Files(url)
    with ThreadPoolExecutor(16) as clients:
        for turn in range(5):
            won = clients.map(lambda who, turn=turn: files.create(f"{files.root}/race/{turn}", b"%d" % who), range(16))
            assert sum(won) == 1


def test_a_conditional_write_whose_answer_is_lost_counts(url: str, network: FaultyNetwork) -> None:
    """The library repeats it and is refused, by its own file."""
    files = Files(url)
    network.first(1, Fault(cut=True), method="PUT", part="/lost")
    assert files.create(f"{files.root}/lost", b"mine") is True
    assert files.create(f"{files.root}/lost", b"other") is False


def test_a_server_that_ignores_the_condition_is_found_out(url: str, tmp_path: Path, network: FaultyNetwork) -> None:
    """Some S3 servers do: then the run says once that single flight does not hold, and builds."""
    network.fault = lambda method, path: Fault(status=200) if "/leases/probe-" in path else None
    with pytest.warns(StoreWarning, match="may build the same artifact at once"):
        make(machine(url, tmp_path, "one"), Build())


def test_a_long_build_keeps_its_lease(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is renewed for as long as the build takes; meanwhile the key is busy for the others."""
    monkeypatch.setattr(leases, "SECONDS", 0.9)
    monkeypatch.setattr(leases, "PAUSE", 0.2)
    build = Build(takes=3.0)
    one, two = machine(url, tmp_path, "one"), machine(url, tmp_path, "two")
    with ThreadPoolExecutor(2) as machines:
        first = machines.submit(make, one, build)
        assert build.begun.wait(60) and two.busy(KEY)
        second = machines.submit(make, two, build)
        assert first.result().digest == second.result().digest
    assert build.times == 1
    time.sleep(0.3)
    assert not two.busy(KEY)


HOLDER = """
    import os, sys, time
    from pathlib import Path
    from resurgence_harness.storing import Store
    from resurgence_harness.storing.remote import leases
    leases.SECONDS = 1.5
    def build(folder):
        print("building", flush=True)
        time.sleep(float(sys.argv[3]))
        (folder / "large").write_bytes(b"the first holder's")
        return {}
    Path(sys.argv[2]).mkdir()
    made = Store(sys.argv[1], mirror=Path(sys.argv[2])).make(
        sys.argv[4], kind="thing", label="a thing", inputs={}, build=build)
    print(made.digest, flush=True)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSTOP])
def test_a_holder_that_is_gone_is_replaced(
    ending: int, url: str, tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, or frozen for longer than its lease: another builds. Who wakes up later damages nothing."""
    monkeypatch.setattr(leases, "PAUSE", 0.3)
    holder = other_process(HOLDER, url, str(tmp_path / "holder"), "1.0", KEY, env=environment)
    assert holder.stdout is not None and holder.stdout.readline() == "building\n"
    holder.send_signal(ending)
    build, start = Build(), time.monotonic()
    made = make(machine(url, tmp_path, "next"), build)
    assert build.times == 1 and 1.0 < time.monotonic() - start < 30
    holder.send_signal(signal.SIGCONT)
    output, _ = holder.communicate(timeout=60)
    store = machine(url, tmp_path, "third")
    (checked,) = keeping.verify(store)
    assert checked.problem == ""
    digest = store.open(KEY).digest
    assert digest == (made.digest if ending == signal.SIGKILL else output.strip())


# A bad network


def test_a_bad_network_costs_time_and_nothing_else(url: str, tmp_path: Path, network: FaultyNetwork) -> None:
    """Every request is late, every third is refused as too fast, every fifth is cut off: the same bytes arrive."""
    count = iter(range(10**6))

    def fault(method: str, path: str) -> Fault:
        number = next(count)
        if number % 3 == 0:
            return Fault(late=0.02, status=503)
        return Fault(late=0.02, cut=number % 5 == 0)

    network.fault = fault
    build = Build(2 * PART + 1)
    made = make(machine(url, tmp_path, "one"), build)
    opened = machine(url, tmp_path, "two").open(KEY)
    assert build.times == 1
    assert (opened.path / "large").read_bytes() == (made.path / "large").read_bytes()


def test_a_damaged_transfer_is_repeated_and_a_damaged_file_is_found(
    url: str, tmp_path: Path, network: FaultyNetwork
) -> None:
    """Once: downloaded again. Always: the artifact is corrupt, nothing of it is kept, and it is built again."""
    make(machine(url, tmp_path, "one"), Build())
    network.first(1, Fault(flip=True), method="GET", part="/large")
    assert machine(url, tmp_path, "two").open(KEY)
    network.first(10**6, Fault(flip=True), method="GET", part="/large")
    three = machine(url, tmp_path, "three")
    with pytest.raises(Corrupt, match="is not what was uploaded"):
        three.open(KEY)
    assert not (three.root / KEY[:2] / KEY).exists() and not list((three.root / "tmp").iterdir())
    build = Build()
    with pytest.warns(StoreWarning, match="being built again"):
        make(three, build)
    assert build.times == 1


def test_a_server_that_is_killed_midway_loses_nothing(
    url: str, tmp_path: Path, network: FaultyNetwork, server: ObjectServer, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During an upload: one sentence and exit code 12, no half artifact; the next run sends what was built."""

    def fault(method: str, path: str) -> Fault | None:
        if method == "PUT" and "/large" in path:
            server.kill_gateway()
            network.fault = lambda method, path: None
        return None

    network.fault = fault
    one, build = machine(url, tmp_path, "one"), Build()
    with pytest.raises(Unwritable, match=r"\AThe store s3://.* cannot be written") as caught:
        make(one, build)
    sentence_of(caught.value)
    with pytest.raises(Unreachable):
        machine(url, tmp_path, "two").find(KEY)
    assert command("store", "ls", "--store", url, capfd=capfd, monkeypatch=monkeypatch)[0] == 4
    server.start_gateway()
    assert machine(url, tmp_path, "two").find(KEY) is None
    made = make(machine(url, tmp_path, "one"), build)
    assert build.times == 1 and machine(url, tmp_path, "two").open(KEY).digest == made.digest


def test_a_server_that_restarts_is_waited_for(
    url: str, tmp_path: Path, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart of seconds is shorter than the pauses between attempts."""
    monkeypatch.setattr(retrying, "PAUSES", (0.5, 1.0, 2.0, 4.0))
    one = machine(url, tmp_path, "one")
    make(one, Build())
    server.kill_gateway()
    starting = threading.Timer(1.0, server.start_gateway)
    starting.start()
    try:
        assert make(one, Build(), name=key("thing", "two"))
    finally:
        starting.join()


# Refused


@pytest.mark.parametrize(
    ("changed", "advice"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "a/wrong/secret/0123456789"}, "Check the credentials"),
        ({"AWS_ACCESS_KEY_ID": "NOBODYSACCESSKEY0001"}, "Check the credentials"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "Check the credentials"),
        ({"AWS_ACCESS_KEY_ID": f"{ACCESS_KEY[:-4]}READ"}, "your credentials"),  # of a user without rights here
    ],
    ids=["secret", "key", "none", "user"],
)
def test_credentials_that_do_not_fit_are_told_first(
    changed: dict[str, str], advice: str, url: str, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4 and one sentence before anything is done; no key, secret or signature is shown."""
    import s3fs

    for name, value in changed.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    (tmp_path / "local").mkdir()
    push = ("store", "push", "--remote", url, "--store", str(tmp_path / "local"))
    for words in (("store", "ls", "--store", url), push):
        code, output = command(*words, capfd=capfd, monkeypatch=monkeypatch)
        assert code == 4 and output.startswith(f"resurgence: The store {url} cannot be read.\n"), output
        assert advice in output
        assert not any(value and value in output for value in changed.values())
    with pytest.raises(UserError) as caught:
        check_usable(url)
    sentence_of(caught.value)
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_clock_that_is_an_hour_off_is_named(
    url: str, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server refuses such signatures; the sentence says what to set."""
    from botocore import auth

    now = auth.get_current_datetime
    monkeypatch.setattr(auth, "get_current_datetime", lambda *given: now(*given) + timedelta(hours=1))
    code, output = command("store", "ls", "--store", url, capfd=capfd, monkeypatch=monkeypatch)
    assert code == 4 and "RequestTimeTooSkewed" in output and "Set this machine's clock" in output


def test_a_full_bucket_is_told_and_what_was_built_is_sent_later(url: str, tmp_path: Path, server: ObjectServer) -> None:
    """A quota in the middle of a run: Unwritable, which ends with 12; no manifest; nothing is built twice."""
    one, build = machine(url, tmp_path, "one"), Build(3_000_000)
    make(one, Build(), name=key("thing", "two"))
    server.set_quota(2_000_000)
    try:
        with pytest.raises(Unwritable) as caught:
            make(one, build)
        assert "QuotaExceeded" in sentence_of(caught.value) and "resurgence store gc" in str(caught.value)
        assert machine(url, tmp_path, "two").find(KEY) is None
    finally:
        server.set_quota(None)
    assert make(machine(url, tmp_path, "one"), build) and build.times == 1
    assert machine(url, tmp_path, "two").open(KEY)


@pytest.mark.parametrize("layout", [b'{"layout": 2}', b"not JSON"])
def test_a_store_of_a_newer_version_is_refused(
    layout: bytes, url: str, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before reading and before writing, with exit code 4; nothing is written there."""
    store = machine(url, tmp_path, "one")
    assert store.remote is not None
    store.remote.files.write(f"{store.remote.files.root}/store.json", layout)
    code, output = command("store", "ls", "--store", url, capfd=capfd, monkeypatch=monkeypatch)
    assert code == 4 and "was written by a newer version of resurgence-harness" in output
    with pytest.raises(ResurgenceError, match="newer version"):
        make(store, Build())
    assert machine(url, tmp_path, "two").find(KEY) is None


# Copies and maintenance


def test_push_pull_and_verify_go_on_where_they_stopped(
    url: str, tmp_path: Path, network: FaultyNetwork, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push that is refused midway, then completed; a pull of everything; damage there, found by verify."""
    local = Store(tmp_path / "local")
    names = [key("thing", number) for number in range(5)]
    for name in names:
        make(local, Build(), name=name)

    def run(*words: str) -> tuple[int, str]:
        return command("store", *words, "--remote", url, capfd=capfd, monkeypatch=monkeypatch)

    sent = iter(range(10**6))
    network.fault = lambda method, path: (
        Fault(status=403, code="AccessDenied") if method == "PUT" and "/large" in path and next(sent) >= 2 else None
    )
    code, output = run("push", "--store", str(local.root))
    assert code == 12 and "cannot be written" in output
    network.fault = lambda method, path: None
    code, output = run("push", "--store", str(local.root))
    assert code == 0 and "3 artifacts (315 B) copied" in output and "2 artifacts (210 B) there already" in output
    code, output = run("pull", "--store", str(tmp_path / "elsewhere"))
    assert code == 0 and "5 artifacts (525 B) copied" in output
    assert {one.digest for one in Store(tmp_path / "elsewhere").ls()} == {one.digest for one in local.ls()}
    assert "5 artifacts (525 B) there already" in run("pull", "--store", str(tmp_path / "elsewhere"))[1]

    def downloads() -> int:
        return sum(method == "GET" and "/large" in path for method, path in network.requests)

    before = downloads()
    network.fault = lambda method, path: (
        Fault(status=403, code="AccessDenied") if "/large" in path and downloads() - before > 2 else None
    )
    assert run("verify")[0] == 12
    network.fault, before = lambda method, path: None, downloads()
    assert "5 artifacts intact, 0 damaged" in run("verify")[1] and downloads() - before == 3
    remote = Store(url).remote
    assert remote is not None
    digest = local.open(names[0]).digest
    remote.files.write(f"{remote.files.root}/{names[0][:2]}/{names[0]}/{digest}/large", bytes(100))
    code, output = run("verify")
    assert code == 12 and names[0] in output and "4 artifacts intact, 1 damaged" in output


def test_gc_removes_old_artifacts_and_spares_what_is_used(url: str, tmp_path: Path) -> None:
    """Forty days later; and unfinished uploads in parts are given up."""
    store = machine(url, tmp_path, "one")
    make(store, Build())
    assert store.remote is not None
    files = store.remote.files
    bucket, _, prefix = files.root.partition("/")
    files.filesystem.call_s3("create_multipart_upload", Bucket=bucket, Key=f"{prefix}/{KEY[:2]}/{KEY}/x/large")
    now = datetime.now(UTC)
    assert keeping.gc(store, older_than_days=0.01, now=now + timedelta(hours=12)) != []  # the mirror's copy
    assert machine(url, tmp_path, "two").open(KEY) and len(files.filesystem.list_multipart_uploads(bucket)) == 1
    removed = keeping.gc(machine(url, tmp_path, "three"), older_than_days=30, now=now + timedelta(days=40))
    assert [(one.label, one.reason) for one in removed] == [("thing: a thing", "last used 40 days ago")]
    assert sorted(files.names(files.root)) == ["packs", "store.json"]
    assert files.filesystem.list_multipart_uploads(bucket) == []
