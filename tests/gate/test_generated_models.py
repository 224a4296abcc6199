"""Every generated file and directory is refused in a sentence, or told apart from the model that it was made from."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resurgence_harness.diffusion.base_files import digest_of
from resurgence_harness.diffusion.formats import Source, materialise
from resurgence_harness.diffusion.texts import check_texts
from resurgence_harness.errors import UserError
from tests.gate.generated_models import Row, directories, files
from tests.tiny import save_tiny_stable_diffusion

pytestmark = pytest.mark.slow

SECONDS, MEGABYTES = 5.0, 300
"""For one candidate, processor's time; for all of them together."""
TEXTS = ("a portrait of ada quill",)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model."""
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("whole") / "base")


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another whole model, which a candidate may not lead to."""
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("outside") / "base", seed=1)


def check(rows: list[Row], base: Path, folder: Path, *, load: bool) -> dict[str, str]:
    """What is wrong with the answers, by row."""
    own, wrong = digest_of(base), {}
    for number, row in enumerate(rows):
        place = folder / str(number)
        place.mkdir(parents=True)
        path = row.make(place)
        start = time.process_time()
        said = " ".join(_answers(row, path, base, own, folder / "made", load=load))
        if time.process_time() - start > SECONDS:
            said += f" it took {time.process_time() - start:.1f} s"
        if said:
            wrong[row.name] = said
    return wrong


def _answers(row: Row, path: Path, base: Path, own: str, made: Path, *, load: bool) -> Iterator[str]:
    from resurgence_harness.diffusion.model import StableDiffusion

    try:
        found = materialise([Source(path=path)], base, made)
    except UserError as error:
        yield from _of_sentence(error)
        if row.expected == "same":
            yield f"refused: {error}"
        return
    except BaseException as error:
        yield f"a traceback: {error!r:.300}"
        return
    same = found.base.digest == own
    if row.expected == "refused":
        yield "taken"
    elif row.expected != "any" and same != (row.expected == "same"):
        yield f"taken for {'the same model' if same else 'another model'}"
    if load:
        try:
            check_texts(Path(found.base.location), TEXTS)
            StableDiffusion.load(found.base.location)
        except UserError as error:
            yield from _of_sentence(error)
        except BaseException as error:
            yield f"a traceback when loaded: {error!r:.300}"


def _of_sentence(error: UserError) -> Iterator[str]:
    first, *others = str(error).splitlines()
    if not first.endswith(".") or not others or not others[-1].startswith("  "):
        yield f"no sentence: {error}"
    if not str(error).replace("\n", "").isprintable() or max(map(len, [first, *others])) > 1000:
        yield f"not fit to be shown: {str(error)!r:.300}"


def test_every_file_is_refused_or_noticed(base: Path, tmp_path: Path) -> None:
    """Headers, types, names, metadata."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = files(base)
    wrong = check(rows, base, tmp_path, load=False)
    assert not wrong, "\n".join(f"{name}: {words}" for name, words in wrong.items())
    assert len(rows) >= 100
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


def test_every_directory_is_refused_or_noticed(base: Path, outside: Path, tmp_path: Path) -> None:
    """Settings, tokenizers, indices, links, files that are there twice; what is taken can be loaded."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = directories(base, outside)
    wrong = check(rows, base, tmp_path, load=True)
    assert not wrong, "\n".join(f"{name}: {words}" for name, words in wrong.items())
    assert len(rows) >= 100
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 3 * MEGABYTES  # torch is loaded in it
