"""`resurgence build`: mistakes in its options, and stores that two versions write."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness import cli
from resurgence_harness.errors import UserError
from resurgence_harness.executing.versions import check_written
from resurgence_harness.planning import Wanted, images_key, plan
from resurgence_harness.storing import Store
from tests.test_planning import ASKED, BASE, Eye, put

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shard", "9/8"), 'There is no shard "9/8".'),
        (("--shard", "0/8"), 'There is no shard "0/8".'),
        (("--shard", "x"), 'There is no shard "x".'),
        (("--engine", "dask"), 'There is no engine "dask".'),
        (("--address", "auto"), "--address and --memory belong to a Ray cluster."),
        (("--workers", "0"), "--workers is 0."),
        (("--engine", "ray", "--memory", "-1"), "--memory is -1.0."),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_4(
    options: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is collected."""
    monkeypatch.setattr(sys, "argv", ["resurgence", "build", "no-such-suite", *options])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 4
    assert capsys.readouterr().err.splitlines()[0] == f"resurgence: {words}"


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """written(format) → a store with one artifact, as if another version had written it."""

    def written(number: int) -> Store:
        store = Store(tmp_path / "store")
        manifest = put(store, images_key(BASE, ASKED), "images").path / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": number}))
        return store

    return written


def test_a_store_that_another_version_writes_is_refused(written: Any) -> None:
    """Each would replace the other's artifacts."""
    store = written(99)
    actions = plan(store, [Wanted(BASE, ASKED, Eye())]).actions
    with pytest.raises(UserError, match="written by another version of resurgence-harness") as refused:
        check_written(store, actions)
    assert "99; this version reads and writes 1" in str(refused.value)


def test_a_damaged_artifact_is_built_again_and_no_mistake(written: Any) -> None:
    """The format is this version's: the manifest alone is damaged."""
    store = written(1)
    put(store, images_key(BASE, ASKED), "images")
    (store.root / images_key(BASE, ASKED)[:2] / images_key(BASE, ASKED) / "manifest.json").write_text("{")
    check_written(store, plan(store, [Wanted(BASE, ASKED, Eye())]).actions)
