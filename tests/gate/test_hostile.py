"""Every hostile file is one sentence: no traceback, no code run, nothing written elsewhere, little memory and time."""

from __future__ import annotations

import os
import resource
import time
import tracemalloc
from pathlib import Path

import pytest

from resurgence_harness.diffusion.formats import Source, materialise
from resurgence_harness.errors import UserError
from tests.gate.hostile import corpus
from tests.tiny import save_tiny_stable_diffusion

pytestmark = pytest.mark.slow

SECONDS, MEGABYTES = 15, 200


def test_the_whole_corpus_is_refused(tmp_path: Path) -> None:
    """One UserError per case, whose first line is a sentence and whose last line says what to do."""
    base = save_tiny_stable_diffusion(tmp_path / "base")
    marker, outside, made = tmp_path / "marker", tmp_path / "outside", tmp_path / "made"
    outside.write_bytes((base / "unet/diffusion_pytorch_model.safetensors").read_bytes())
    cases = corpus(base, marker, outside)
    wrong, spent, peak = {}, 0.0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, case in enumerate(cases):
        folder = tmp_path / "hostile" / str(number)
        folder.mkdir(parents=True)
        path = case.make(folder)
        there = sorted(os.walk(folder))
        if case.name.startswith("header"):  # tracing makes all of them five times slower
            tracemalloc.start()
        start = time.process_time()
        try:
            materialise([Source(path=path)], base, made)
            wrong[case.name] = "it was accepted"
        except UserError as problem:
            first, *_, last = str(problem).splitlines()
            if not first.endswith(".") or not last.startswith("  ") or not str(problem).replace("\n", "").isprintable():
                wrong[case.name] = str(problem)
        except BaseException as problem:
            wrong[case.name] = repr(problem)[:300]
        spent += time.process_time() - start
        if tracemalloc.is_tracing():
            peak = max(peak, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        if sorted(os.walk(folder)) != there:
            wrong[case.name] = "it left something behind"

    assert not wrong, "\n".join(f"{name}: {words}" for name, words in wrong.items())
    assert len(cases) >= 100
    assert not marker.exists(), "a pickle ran"
    assert {path.name for path in tmp_path.iterdir()} <= {"base", "outside", "made", "hostile"}
    assert not made.exists() or not list(made.iterdir())
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{len(cases)} cases, {spent:.1f} s, {peak / 1e6:.0f} MB traced, {grown:.0f} MB resident")
    assert spent < SECONDS and peak < MEGABYTES * 1e6 and grown < 10 * MEGABYTES


def test_a_hostile_directory_is_refused_without_a_base_too(tmp_path: Path) -> None:
    """Judged alone, nothing to hold its tensors against: what the files do not show, loading does."""
    from resurgence_harness.diffusion.model import StableDiffusion

    base = save_tiny_stable_diffusion(tmp_path / "base")
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    cases = [case for case in corpus(base, tmp_path / "marker", outside) if case.name.startswith("directory")]
    for number, case in enumerate(cases):
        folder = tmp_path / "hostile" / str(number)
        folder.mkdir(parents=True)
        path = case.make(folder)
        with pytest.raises(UserError):
            StableDiffusion.load(materialise([Source(path=path)], None, tmp_path / "made").base.location)
            print(f"{case.name} was accepted")
    assert len(cases) > 50 and not (tmp_path / "marker").exists()


def test_the_bombs_go_off_where_they_are_believed(tmp_path: Path) -> None:
    """Else the corpus would prove nothing."""
    import pickle

    from tests.gate.hostile import Bomb

    pickle.loads(pickle.dumps(Bomb(tmp_path / "marker")))

    assert (tmp_path / "marker").exists()


def test_the_unbroken_model_passes(tmp_path: Path) -> None:
    """What the corpus breaks is accepted when it is whole."""
    base = save_tiny_stable_diffusion(tmp_path / "base")

    assert materialise([Source(path=base)], base, tmp_path / "made").base.location == str(base)
    with pytest.raises(UserError):
        materialise([Source(path=base / "model_index.json")], base, tmp_path / "made")
