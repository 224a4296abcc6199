"""How long `plan` takes on a large store: on this disk, and behind a real S3 server on this machine.

    python -m benchmarks.store_size                                        # 100,000 artifacts, 300 cells; 20 minutes
    python -m benchmarks.store_size --to reports/performance/store.csv
    python -m benchmarks.store_size --artifacts 5000 --cells 28            # 2 minutes

The cells are those of suites/celebrity (profile quick, 50 pieces of evidence each), on as many bases as give 300. The
artifacts of half of them are present; the rest of the store is other artifacts of the same shape. Only manifests are
uploaded: planning reads no other file. Each figure is from a process of its own, without its start: `plan` reads the
manifests that exist and computes every key. The server is radosgw (tests/storing/object_server.py), so its work is in
the wall time; with "50 ms" every request is delayed by that, as between a workstation and a cloud region.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import http.client
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from resurgence_harness.planning import Wanted, plan
from resurgence_harness.specs import Recipe
from resurgence_harness.storing import Snapshot, Store, StoredFile
from resurgence_harness.storing.manifests import manifest_bytes

CONTENT = b"x"
FIELDS = ("store", "what", "artifacts", "cells", "actions", "present", "seconds", "CPU seconds", "requests")


def wanted(cells: int) -> list[Wanted]:
    """What this many cells want."""
    from resurgence_harness.cli.cells import collected

    with tempfile.TemporaryDirectory() as empty:
        words = ["suites/celebrity", "--resurgence-profile", "quick", "--resurgence-store", f"{empty}/store"]
        found = collected(words)
    every: list[Wanted] = []
    for copy in range(-(-cells // len(found.plans))):
        share = min(cells - copy * len(found.plans), len(found.plans))
        for recipe, probe, judge in found.wanted[: len(found.wanted) * share // len(found.plans)]:
            base = replace(recipe.base, digest=hashlib.sha256(f"{recipe.base.digest}{copy}".encode()).hexdigest())
            every.append(Wanted(Recipe(base, recipe.steps), probe, judge))
    return every


def manifests(artifacts: int, present: list[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
    """(key, manifest) of the artifacts of the present cells, and of others until there are enough."""
    files = {"content": StoredFile(sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))}
    others = ((hashlib.sha256(b"%d" % number).hexdigest(), "images") for number in range(artifacts - len(present)))
    before = ""
    for key, kind in (*present, *others):
        work = {"group": f"{kind} of one kind", "units": 50}
        facts = {
            "device": "cuda",
            "work": work,
            "seconds elsewhere": 0.0,
            "versions": {"torch": "2.11", "diffusers": "0.42"},
        }
        digest = hashlib.sha256(json.dumps([["content", files["content"].sha256]], separators=(",", ":")).encode())
        inputs = {before: digest.hexdigest()} if before else {}
        yield (
            key,
            manifest_bytes(
                key=key,
                kind=kind,
                label=f"{kind} of micro → esd(10) → lora",
                inputs=inputs,
                facts=facts,
                files=files,
                seconds=3.0,
            ),
        )
        before = key


def fill(local: Path, remote: str, artifacts: int, cells: int) -> None:
    """Write the same artifacts to both stores, and to a pack."""
    half = wanted(cells)[: cells * 25]
    with tempfile.TemporaryDirectory() as empty:
        present = [(action.key, action.kind) for action in plan(Store(Path(empty) / "store"), half).actions]
    there = Store(remote).remote
    assert there is not None
    lines: dict[str, bytes] = {}
    sent = bulk(there.files.root)
    next(sent)
    for key, manifest in manifests(artifacts, present):
        folder = local / key[:2] / key
        folder.mkdir(parents=True)
        (folder / "content").write_bytes(CONTENT)
        (folder / "manifest.json").write_bytes(manifest)
        sent.send((f"{key[:2]}/{key}/manifest.json", manifest))
        lines[key] = manifest.replace(b"\n", b"")
        if len(lines) % 1000 == 0:
            print(f"\r{len(lines):,} of {artifacts:,} artifacts", end="", file=sys.stderr)
    sent.close()
    there.packs.write(1, lines)


def bulk(root: str) -> Generator[None, tuple[str, bytes], None]:
    """Upload what is sent to it, unsigned, over four connections: the bucket is open, and signing takes longest."""
    queues = [queue.Queue[tuple[str, bytes] | None](1000) for _ in range(4)]

    def work(waiting: queue.Queue[tuple[str, bytes] | None]) -> None:
        connection = http.client.HTTPConnection(os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"))
        while (one := waiting.get()) is not None:
            connection.request("PUT", f"/{root}/{one[0]}", one[1])
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{one[0]}: {answer.status}")

    threads = [threading.Thread(target=work, args=(waiting,)) for waiting in queues]
    for thread in threads:
        thread.start()
    number = 0
    try:
        while True:
            queues[number % 4].put((yield))
            number += 1
    finally:
        for waiting in queues:
            waiting.put(None)
        for thread in threads:
            thread.join()


def measure(store: str, cells: int) -> dict[str, Any]:
    """Plan these cells on this store."""
    every = wanted(cells)
    requests = [0]
    found = Store(store)
    if found.remote is not None:
        import botocore.auth

        signed = botocore.auth.SigV4Auth.add_auth
        botocore.auth.SigV4Auth.add_auth = lambda *given: (requests.__setitem__(0, requests[0] + 1), signed(*given))[1]
    start, cpu = time.monotonic(), time.process_time()
    snapshot = Snapshot(found)
    actions = snapshot.settled(lambda: plan(snapshot, every)).actions
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    present = sum(not action.needed for action in actions)
    return {
        "cells": cells,
        "actions": len(actions),
        "present": present,
        "seconds": round(seconds, 2),
        "CPU seconds": round(cpu, 2),
        "requests": requests[0],
    }


def main() -> None:
    """Fill both stores, measure in processes of their own, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=int, default=100_000)
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--to", type=Path, help="a CSV file")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.cells)))
        return
    from tests.storing.faulty_network import Fault, FaultyNetwork
    from tests.storing.object_server import ObjectServer

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        folder, url = Path(place), "s3://large/store"
        server = ObjectServer(folder / "s")
        server.start()
        try:
            os.environ.update(server.environment(folder))
            import s3fs

            s3fs.S3FileSystem().mkdir("large", acl="public-read-write")
            fill(folder / "local", url, given.artifacts, given.cells)

            def row(store: str, name: str, what: str, **extra: str) -> None:
                words = [sys.executable, "-m", "benchmarks.store_size", "--measure", store, "--cells", str(given.cells)]
                done = subprocess.run(words, env={**os.environ, **extra}, stdout=subprocess.PIPE, text=True, check=True)
                rows.append({"store": name, "what": what, **json.loads(done.stdout.splitlines()[-1])})
                print(rows[-1], file=sys.stderr)

            mirrors = folder / "cache" / "resurgence-mirrors"
            for turn in ("first", "again"):
                row(str(folder / "local"), "directory", f"plan, {turn}")
            shutil.rmtree(mirrors, ignore_errors=True)
            (mirrors / hashlib.sha256(url.encode()).hexdigest()[:16]).mkdir(parents=True)
            for turn in ("no local copies", "copies of the packs"):
                row(url, "radosgw", f"plan, {turn}")
            with FaultyNetwork(server.port) as network:
                network.fault = lambda method, path: Fault(late=0.05)
                row(url, "radosgw, 50 ms", "plan, copies of the packs", AWS_ENDPOINT_URL=network.url)
        finally:
            server.stop()
    for one in rows:
        one["artifacts"] = given.artifacts
    with given.to.open("w", newline="") if given.to else sys.stdout as stream:
        table = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
