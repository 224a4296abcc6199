"""A base is found by alias, hub id or path, without the network, and its weights are held against their pins."""

from __future__ import annotations

import hashlib
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.diffusion import hub
from resurgence_harness.diffusion.base_files import WEIGHTS, check_base, digest_of, weight_files
from resurgence_harness.diffusion.families import FAMILIES
from resurgence_harness.diffusion.hub import ALIASES, COMMIT, NO_PIN, Mirror, Published, is_name, locate
from resurgence_harness.diffusion.tensor_files import sha256_of
from resurgence_harness.errors import UserError
from resurgence_harness.selection import resolve_base

COMMITTED = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is a failure."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that the hub's own library knows as its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, model: Path, repo: str, revision: str = COMMITTED) -> Path:
    """A snapshot as the hub's library lays it out: links into blobs."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / revision
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for path in (path for path in model.rglob("*") if path.is_file()):
        blob = folder / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, blob)
        place = snapshot / path.relative_to(model)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(Path("../" * (len(place.relative_to(folder).parts) - 1)) / "blobs" / blob.name)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    return snapshot


def pins(model: Path) -> dict[str, str]:
    """File → sha256 of the weights."""
    return {
        path.relative_to(model).as_posix(): sha256_of(path) for part in WEIGHTS for path in weight_files(model, part)
    }


def test_a_snapshot_is_found_by_its_commit(v1: Path, cache: Path) -> None:
    """The digest is that of the same files elsewhere; the links into the blobs are followed."""
    snapshot = put(cache, v1, "owner/name")
    found = locate(f"owner/name@{COMMITTED}")
    base = resolve_base(f"owner/name@{COMMITTED}")

    assert found.directory == snapshot and found.verified == NO_PIN
    check_base(snapshot)
    assert base.digest == digest_of(v1) and base.name == "owner/name@01234567" and base.location == str(snapshot)


@pytest.mark.parametrize(
    "word", ["owner/name", "owner/name@main", "owner/name@0123", f"owner/name@{COMMITTED[:-1]}G", "a--b/c@x"]
)
def test_a_hub_id_without_a_commit_is_refused(word: str, v1: Path, cache: Path) -> None:
    """A branch can change under a verdict; the commit that the cache has is told."""
    put(cache, v1, "owner/name")

    with pytest.raises(UserError, match="has no pinned revision") as caught:
        locate(word)

    assert (f"owner/name@{COMMITTED}" in str(caught.value)) == word.startswith("owner/name")


def test_what_is_missing_is_one_line_to_fetch_it(v1: Path, cache: Path) -> None:
    """Nothing in the cache, another commit, or half a snapshot: the very command."""
    for word in (f"owner/name@{COMMITTED}", "sd14"):
        with pytest.raises(UserError, match="not on this machine") as caught:
            locate(word)
        assert str(caught.value).splitlines()[-1].endswith(f"resurgence fetch {word}")
    snapshot = put(cache, v1, "owner/name")
    with pytest.raises(UserError, match="not on this machine, or incomplete"):
        locate(f"owner/name@{OTHER}")
    (snapshot / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="not on this machine, or incomplete"):
        locate(f"owner/name@{COMMITTED}")


def test_a_mirror_counts_when_its_weights_are_the_published_ones(
    v1: Path, v2: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first whole and matching one, whatever it is called; another model under its name is refused."""
    model = Published(
        mirrors=(Mirror(repo="first/model", revision=COMMITTED), Mirror(repo="second/model")),
        pins=pins(v1),
        status="made up",
    )
    monkeypatch.setattr(hub, "ALIASES", {"sd": model})
    put(cache, v2, "first/model")
    with pytest.raises(UserError, match="are not the published ones") as caught:
        locate("sd")
    assert "first/model@01234567" in str(caught.value) and "published" in str(caught.value)

    put(cache, v2, "second/model", COMMITTED)
    put(cache, v1, "second/model", OTHER)
    found = locate("sd")
    assert found.source == f"second/model@{OTHER}" and found.verified == "sha256 of every weight file"
    assert found.weights == pins(v1) and resolve_base("sd").name == "sd"


def test_without_a_pin_what_was_found_is_recorded_and_said(
    v1: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never "verified"."""
    model = Published(mirrors=(Mirror(repo="first/model", revision=COMMITTED),), status="made up")
    monkeypatch.setattr(hub, "ALIASES", {"sd": model})
    put(cache, v1, "first/model")

    assert locate("sd").verified == NO_PIN and locate("sd").weights == pins(v1)


def test_a_directory_comes_before_the_hub(
    v1: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """owner/name below the working directory is that directory."""
    shutil.copytree(v1, tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)

    assert locate("owner/name").directory == tmp_path / "owner" / "name"
    assert not is_name("owner/name", tmp_path) and is_name("owner/other", tmp_path)
    assert is_name("sd14", tmp_path) and not is_name("model", tmp_path) and not is_name("a/b/c", tmp_path)


FAMILY_WEIGHTS = [family.weights for family in FAMILIES]


@pytest.mark.parametrize("word", ALIASES)
def test_the_table_is_well_formed(word: str) -> None:
    """Commits and hashes have their lengths; a mirror without a commit needs pins to be told by; the status is said."""
    model = ALIASES[word]

    assert model.status and all(len(digest) == 64 and int(digest, 16) for digest in model.pins.values())
    assert all(COMMIT.fullmatch(mirror.revision) or (not mirror.revision and model.pins) for mirror in model.mirrors)
    assert not model.pins or {name.partition("/")[0] for name in model.pins} in map(set, FAMILY_WEIGHTS)
    assert model.mirrors[0].revision
