"""`--log` with the real libraries: MLflow on a file store, Weights & Biases offline; what is missing is a sentence."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.reporting import escaping, tracking, verdict_json
from tests.gate.conftest import POLICY, Tiny

pytestmark = pytest.mark.slow

SECRET = "notforanybodyseyes123"


@pytest.fixture
def gate(known: Tiny, here: Path, resurgence: Any) -> Any:
    """gate(candidate, trackers): a whole gate on the tiny models."""
    (here / "policy.yaml").write_text(POLICY, encoding="utf-8")
    given = ["--policy", "policy.yaml", "--unlearned", known.files["unlearned"], "--base", known.base]
    given += ["--store", known.store, "--out", "out"]

    def run(candidate: str, *trackers: str) -> Any:
        words = [word for name in trackers for word in ("--log", name)]
        return resurgence("gate", "--candidate", known.files.get(candidate, candidate), *given, *words)

    return run


def verdict(folder: Path) -> dict[str, Any]:
    """verdict.json."""
    return verdict_json.read(folder / "out/verdict.json").model_dump()


def test_mlflow_has_every_number_and_every_file(gate: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One finished run with parameters, metrics, words and artifacts; the exit code is the regression's."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (here / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)

    said = gate("regressing", "mlflow")

    assert said.code == 1, said.err
    assert "Shared: MLflow run" in said.out
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    found = verdict(here)
    assert run.data.metrics == tracking.metrics(found)
    (cell,) = found["cells"]
    assert run.data.metrics["erased-2-candidate/after.rate"] == cell["after"]["rate"] > 0.9
    assert run.data.metrics["exit_code"] == 1
    assert run.data.params["policy"] == found["gate"]["policy"]["digest"]
    assert run.data.tags["erased-2-candidate/verdict"] == "VIOLATED"
    logged = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert logged == {path.name for path in (here / "out").iterdir()} >= {"verdict.json", "contact-sheet-erased.jpg"}
    assert_discreet(here, said)


def test_wandb_has_every_number_and_every_file(gate: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, so that it can be read here: the summary holds the numbers; nothing but what was logged is in it."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", SECRET * 2)

    said = gate("passing", "wandb")

    assert said.code == 0, said.err
    assert "Shared: W&B run" in said.out
    (file,) = (here / "out/wandb").glob("offline-run-*/*.wandb")
    summary, config, files = read_offline(file)
    found = verdict(here)
    numbers = tracking.metrics(found)
    assert {name: summary[name] for name in numbers} == numbers
    assert summary["erased-2-candidate/verdict"] == "HOLDS"
    assert config["policy"] == found["gate"]["policy"]["digest"]
    assert {"verdict.json", "contact-sheet-erased.jpg"} <= files
    assert not list((here / "out/wandb").rglob("requirements.txt")) and not list(here.rglob("wandb-metadata.json"))
    assert_discreet(here, said)


def test_a_gate_without_a_verdict_leaves_a_failed_run(gate: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawing broke: nobody reads an open or a finished run as a verdict."""
    mlflow = pytest.importorskip("mlflow")
    from resurgence_harness.gate import running

    def broken(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (here / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr(running, "run", broken)
    with suppress(KeyboardInterrupt):
        gate("passing", "mlflow")
    (run,) = mlflow.MlflowClient().search_runs(["0"])
    assert run.info.status == "FAILED" and not run.data.metrics


def test_a_tracker_out_of_reach_is_told_before_an_image_is_drawn(gate: Any, here: Path, monkeypatch: Any) -> None:
    """Exit 4; the account in its address is not repeated."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://somebody:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    said = gate("passing", "mlflow")

    assert said.code == 4 and said.err.startswith("resurgence: mlflow did not open a run, so nothing was drawn.")
    assert not (here / "out/verdict.json").exists()
    assert_discreet(here, said)


def test_a_tracker_that_fails_afterwards_changes_no_verdict(gate: Any, here: Path, monkeypatch: Any) -> None:
    """The reports stand; 12 says that the log is missing, and a regression stays 1."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (here / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")

    def broken(*_: Any) -> None:
        raise OSError(f"https://somebody:{SECRET}@example.org is gone")

    monkeypatch.setattr(mlflow, "log_artifact", broken)
    for candidate, code in (("passing", 12), ("regressing", 1)):
        said = gate(candidate, "mlflow")
        assert said.code == code
        assert "resurgence: The verdict could not be logged to mlflow." in said.err
        assert verdict(here)["exit_code"] == (0 if candidate == "passing" else 1)
        assert_discreet(here, said)
    assert {run.info.status for run in mlflow.MlflowClient().search_runs(["0"])} == {"FAILED"}


@pytest.mark.parametrize("name", tracking.TRACKERS)
def test_a_missing_library_is_a_sentence_with_the_line_for_pip(name: str, gate: Any, here: Path, monkeypatch: Any):
    """Before anything else is looked at; a folder of that name is no library."""
    monkeypatch.setattr(sys, "path", [str(here)])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in str(finder)])
    monkeypatch.delitem(sys.modules, name, raising=False)
    (here / name).mkdir()

    said = gate("nowhere", name)

    assert said.code == 4
    assert said.err.splitlines()[0] == f"resurgence: --log {name} needs the library {name}, which is not installed."
    assert said.err.rstrip().endswith(f'pip install "resurgence-harness[{name}]"')


def test_an_unknown_tracker_and_a_demonstration_are_sentences(gate: Any, resurgence: Any) -> None:
    """There are two."""
    assert "There is no tracker" in gate("passing", "notebook").err
    assert "--demo takes no --log" in resurgence("gate", "--demo", "--log", "mlflow").err


def test_messages_are_discreet() -> None:
    """Secrets of the environment, accounts in addresses, and tokens that stand in a message."""
    environ = {"A_TOKEN": "abcdef123", "PATH": "/usr/bin", "SHORT_KEY": "ab"}
    told = escaping.discreet("abcdef123 at /usr/bin, https://me:pw@host/x, hf_ABCDEFGH123, Bearer xyz; ab", environ)
    assert told == "*** at /usr/bin, https://***@host/x, ***, Bearer ***; ab"


def assert_discreet(folder: Path, said: Any) -> None:
    """The secret stands nowhere: not in what was said, not in a file."""
    assert SECRET not in said.out + said.err
    for file in folder.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


def read_offline(file: Path) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """Summary, config and artifact files of an offline run."""
    from wandb.proto import wandb_internal_pb2

    summary: dict[str, Any] = {}
    config: dict[str, Any] = {}
    files: set[str] = set()
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        summary |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.summary.update}
        config |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.config.update}
        files |= {entry.path for entry in record.request.log_artifact.artifact.manifest.contents}
        files |= {entry.path for entry in record.artifact.manifest.contents}
    return summary, config, files


def log_records(data: bytes, block: int = 1 << 15) -> Iterator[bytes]:
    """The records of an offline run's file, which is LevelDB's log format after seven bytes of its own."""
    place, record = 7, b""
    while place < len(data):
        if block - place % block < 7:
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""
