"""`resurgence fetch` against a hub on this machine, with the hub's own client."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from resurgence_harness.diffusion import hub as bases
from resurgence_harness.diffusion.hub import Mirror, Published, locate
from resurgence_harness.errors import UserError
from resurgence_harness.fetching import Agreements, Hub, fetch, items_named, plan, prepare
from resurgence_harness.fetching.catalogue import catalogue
from tests.fetching.hub import COMMIT, LocalHub, Repository, serving

UNET = "unet/diffusion_pytorch_model.safetensors"
TOKEN = "hf_notforanybodyseyes123"
OPENRAIL = "creativeml-openrail-m"


@pytest.fixture
def files() -> dict[str, bytes]:
    """A base as a repository holds it, with small weights, and files that a fetch leaves alone."""
    parts = (UNET, "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")
    weights = {name: save({"weight": np.full(5000, place, np.float32)}) for place, name in enumerate(parts)}
    settings = {f"{name.split('/')[0]}/config.json": b"{}" for name in parts} | {"model_index.json": b"{}"}
    texts = {"tokenizer/merges.txt": b"a b", "tokenizer/vocab.json": b"{}"}
    return {
        **weights,
        **settings,
        **texts,
        "README.md": b"card",
        "safety_checker/model.safetensors": b"x",
        "a.bin": b"x",
    }


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client may use the network, with a token; weights are in a folder of this test."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)  # what was received of a chunk is lost with a connection
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(tmp_path / "weights"))


@pytest.fixture
def served(files: dict[str, bytes], online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with a base at its first mirror."""
    pins = {
        name: hashlib.sha256(files[name]).hexdigest()
        for name in files
        if name.endswith(".safetensors") and not name.startswith("safety")
    }
    model = Published(
        mirrors=(Mirror(repo="first/model", revision=COMMIT), Mirror(repo="second/model")), pins=pins, status="tested"
    )
    monkeypatch.setitem(bases.ALIASES, "sd14", model)  # type: ignore[arg-type]
    with serving(LocalHub({"first/model": Repository(dict(files))})) as hub:
        yield hub


def got(served: LocalHub, tmp_path: Path, *words: str, agreed: tuple[str, ...] = (OPENRAIL, "mit")) -> list[str]:
    """What a fetch says."""
    hub, said = Hub(endpoint=served.address, cache=tmp_path / "hub"), []
    fetch(plan(items_named(words), hub), hub, agreements=Agreements.here(), agreed=agreed, tell=said.append)
    return said


def refused(served: LocalHub, tmp_path: Path, *words: str, agreed: tuple[str, ...] = (OPENRAIL, "mit")) -> str:
    """The whole message of a fetch that fails."""
    with pytest.raises(UserError) as caught:
        got(served, tmp_path, *words, agreed=agreed)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def test_a_base_is_fetched_once_and_found_by_its_name(served: LocalHub, tmp_path: Path) -> None:
    """Only the files of the base; afterwards it is located with its pins, and the hub is not asked again."""
    (said,) = got(served, tmp_path, "sd14")

    found = locate("sd14", cache=tmp_path / "hub")
    assert str(found.directory) in said and found.verified == "sha256 of every weight file"
    names = {path.relative_to(found.directory).parts[0] for path in found.directory.rglob("*") if path.is_file()}
    assert "README.md" not in names and "safety_checker" not in names and "unet" in names
    assert not list((tmp_path / "hub").rglob("*.part*"))
    asked = len(served.asked)
    (again,) = got(served, tmp_path, "sd14")
    assert "here already" in again and len(served.asked) == asked


def test_the_token_goes_to_the_hub_and_to_no_other_host(served: LocalHub, tmp_path: Path) -> None:
    """Large files come from a storage elsewhere."""
    got(served, tmp_path, "sd14")

    assert served.tokens["hub"] == {f"Bearer {TOKEN}"} and not served.tokens["storage"]
    assert all(TOKEN.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_cut_connection_is_continued(served: LocalHub, tmp_path: Path) -> None:
    """Within a run by the client; after a failed run from the bytes that are here."""
    served.cuts = [1000]
    got(served, tmp_path, "sd14")
    assert "bytes=1000-" in [asked[2] for asked in served.asked]

    shutil.rmtree(tmp_path / "hub")
    served.cuts, served.then = [700], 503
    message = refused(served, tmp_path, "sd14")
    assert "stopped" in message and "700 of" in message and "503" in message
    served.then, served.asked[:] = 0, []
    got(served, tmp_path, "sd14")
    assert "bytes=700-" in [asked[2] for asked in served.asked]
    assert locate("sd14", cache=tmp_path / "hub").verified == "sha256 of every weight file"


def test_other_bytes_than_listed_are_removed(served: LocalHub, tmp_path: Path, files: dict[str, bytes]) -> None:
    """A file that differs from its listed digest never gets its name."""
    served.sent = {UNET: files[UNET][:-1] + b"?"}
    message = refused(served, tmp_path, "sd14")

    assert "is not the file that the hub lists" in message and hashlib.sha256(files[UNET]).hexdigest() in message
    assert not list((tmp_path / "hub").rglob("snapshots/*/unet/*.safetensors"))
    served.sent = {}
    got(served, tmp_path, "sd14")


def test_a_mirror_with_other_weights_is_passed_over(served: LocalHub, tmp_path: Path, files: dict[str, bytes]) -> None:
    """The pins decide, before anything is downloaded; the next mirror has the published ones."""
    served.repositories["second/model"] = Repository(dict(files), commit="f" * 40)
    served.repositories["first/model"].files[UNET] += b"?"
    (said,) = got(served, tmp_path, "sd14")

    assert "second--model" in said and not any("/first/model/resolve" in asked[1] for asked in served.asked)
    assert locate("sd14", cache=tmp_path / "hub").source == f"second/model@{'f' * 40}"
    served.repositories["second/model"].files[UNET] += b"?"
    shutil.rmtree(tmp_path / "hub")
    message = refused(served, tmp_path, "sd14")
    assert message.startswith("No mirror has sd14") and message.count(f"lists another {UNET}") == 2


def test_pins_are_compared_with_the_bytes_if_the_hub_lists_none(
    served: LocalHub, tmp_path: Path, files: dict[str, bytes]
) -> None:
    """Another file is removed after its download, and never found by the base's name."""
    served.unlisted = True
    served.repositories["first/model"].files[UNET] = files[UNET][:-1] + b"?"
    message = refused(served, tmp_path, "sd14")
    assert "is not the published file, so it was removed" in message
    assert hashlib.sha256(files[UNET]).hexdigest() in message
    with pytest.raises(UserError):
        locate("sd14", cache=tmp_path / "hub")
    served.repositories["first/model"].files[UNET] = files[UNET]
    got(served, tmp_path, "sd14")


def test_a_judge_that_is_a_folder_is_there_when_it_is_complete(served: LocalHub, tmp_path: Path) -> None:
    """Weights in shards with their settings; the README stays out; its digest is that of the files."""
    contents = {
        "model-1.safetensors": save({"a": np.ones(2)}),
        "config.json": b"{}",
        "README.md": b"x",
        "x/y.json": b"",
    }
    repo = catalogue()["qwen2.5-vl-7b"].mirrors[0].repo
    served.repositories[repo] = Repository(contents, licence="apache-2.0")
    assert "and others" in refused(served, tmp_path, "qwen2.5-vl-7b", agreed=("apache-2.0",))
    got(served, tmp_path, f"qwen2.5-vl-7b@{COMMIT}", agreed=("apache-2.0",))
    folder = tmp_path / "weights" / "Qwen2.5-VL-7B-Instruct"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model-1.safetensors"]
    assert not list((tmp_path / "weights").glob(".Qwen*"))


def test_a_moved_mirror_is_followed(served: LocalHub, tmp_path: Path) -> None:
    """The hub redirects an old name; the cache keeps the name that is known here."""
    served.repositories["third/model"] = served.repositories.pop("first/model")
    served.moved = {"first/model": "third/model"}
    got(served, tmp_path, "sd14")

    assert locate("sd14", cache=tmp_path / "hub").source == f"first/model@{COMMIT}"


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (401, "", "Log in to the hub"),
        (403, "GatedRepo", "its page wants an agreement and a login"),
        (404, "RepoNotFound", "there is no such repository"),
        (404, "RevisionNotFound", "it has no commit 01234567"),
        (500, "", "answers 500"),
    ],
)
def test_a_refusal_is_one_sentence(
    served: LocalHub, tmp_path: Path, status: int, error: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every mirror with its reason; what a server says beyond its status is not repeated."""
    served.repositories["first/model"].status, served.repositories["first/model"].error = status, error
    message = refused(served, tmp_path, "sd14")

    assert message.startswith("No mirror has sd14 as it was published.") and expected in message
    assert "first/model@01234567" in message and "second/model" in message


def test_without_a_network_nothing_is_guessed(online: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed port, and the hub's offline mode."""
    from huggingface_hub import constants

    nowhere = LocalHub({}, address="http://127.0.0.1:9")
    assert "the hub cannot be reached" in refused(nowhere, tmp_path, "sd14")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "offline mode is on" in refused(nowhere, tmp_path, "sd14")


def test_a_licence_is_agreed_to_once(served: LocalHub, tmp_path: Path) -> None:
    """Not agreed: nothing is downloaded; agreed: recorded, and not asked again; another licence is asked for anew."""
    message = refused(served, tmp_path, "sd14", agreed=("mit",))
    assert message.startswith("The licence of sd14 has not been agreed to.") and "CreativeML OpenRAIL-M" in message
    assert f"--agree {OPENRAIL}" in message and not any("resolve" in asked[1] for asked in served.asked)

    got(served, tmp_path, "sd14", agreed=(OPENRAIL,))
    (kept,) = json.loads((tmp_path / "weights" / "licences.json").read_text())["sd14"]
    assert kept["licence"] == OPENRAIL and kept["source"] == "first/model@0123456789ab"
    shutil.rmtree(tmp_path / "hub")
    got(served, tmp_path, "sd14", agreed=())
    shutil.rmtree(tmp_path / "hub")
    served.repositories["first/model"].licence = "openrail++"
    assert "openrail++" in refused(served, tmp_path, "sd14", agreed=())
    (tmp_path / "weights" / "licences.json").write_text("[]")
    assert "record of licences" in refused(served, tmp_path, "sd14", agreed=())


def test_a_full_disk_is_seen_before_and_during_the_download(
    served: LocalHub, tmp_path: Path, files: dict[str, bytes]
) -> None:
    """More than is free is not begun; a write that fails keeps what there is."""
    served.claimed = {UNET: 10**18}
    assert refused(served, tmp_path, "sd14").startswith("There is not enough space on the disk.")
    assert not any("resolve" in asked[1] for asked in served.asked)

    served.claimed = {}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(files[UNET]) // 2, hard))
    try:
        message = refused(served, tmp_path, "sd14")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "took no more bytes" in message
    got(served, tmp_path, "sd14")


def test_what_has_no_pinned_commit_is_shown_and_then_named(served: LocalHub, tmp_path: Path) -> None:
    """The commit of today and its sha256; with the commit it is put where the judge reads it."""
    content = save({"visual.proj": np.ones((2, 2), np.float32)})
    repo = catalogue()["clip-vit-b-32"].mirrors[0].repo
    served.repositories[repo] = Repository({"open_clip_model.safetensors": content}, licence="mit")
    message = refused(served, tmp_path, "clip")
    assert "is not taken unseen" in message and f"fetch clip-vit-b-32@{COMMIT}" in message
    assert hashlib.sha256(content).hexdigest() in message

    (said,) = got(served, tmp_path, f"clip@{COMMIT}")
    place = tmp_path / "weights" / "clip-vit-b-32-openai.safetensors"
    assert place.read_bytes() == content and hashlib.sha256(content).hexdigest() in said
    assert "here already" in got(served, tmp_path, "clip")[0]


def test_an_id_of_the_hub_needs_its_commit(served: LocalHub, tmp_path: Path) -> None:
    """A LoRA's repository, and one file of it; a licence that nobody states is agreed to by that name."""
    served.repositories["owner/lora"] = Repository({"style.safetensors": save({"a": np.ones(2)})}, licence="")
    assert "has no full commit" in refused(served, tmp_path, "owner/lora@main")
    assert "is nothing that can be fetched" in refused(served, tmp_path, "sd15")
    assert "none-stated" in refused(served, tmp_path, f"owner/lora@{COMMIT}")

    got(served, tmp_path, f"owner/lora@{COMMIT}", agreed=("none-stated",))
    assert locate(f"owner/lora@{COMMIT}", cache=tmp_path / "hub").directory.is_dir()


def test_files_of_ones_own_are_converted_and_checked(
    online: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pickle of tensors becomes the judge's file; one that holds more is not read; a wrong pin is refused."""
    import torch

    (clip,) = items_named(["clip"])
    torch.save({"visual.proj": torch.ones(2, 2)}, tmp_path / "clip.bin")
    assert "sha256" in prepare(clip, tmp_path / "clip.bin") and clip.target is not None and clip.target.is_file()
    torch.save({"x": replace}, tmp_path / "evil.bin")
    with pytest.raises(UserError, match="holds more than tensors"):
        prepare(clip, tmp_path / "evil.bin")
    q16 = items_named(["q16-prompts"])[0]
    (tmp_path / "prompts.p").write_bytes(b"\x80\x04N.")
    with pytest.raises(UserError, match="is not the published"):
        prepare(q16, tmp_path / "prompts.p")
    with pytest.raises(UserError, match="There is nothing at"):
        prepare(q16, tmp_path / "none")


@pytest.mark.slow
def test_a_killed_download_continues(served: LocalHub, tmp_path: Path) -> None:
    """A process that is killed leaves what it had received; the next one asks for the rest."""
    content = save({"a": np.arange(6_000_000, dtype=np.float32)})
    served.repositories["owner/lora"] = Repository({"style.safetensors": content}, licence="mit")
    served.cuts, served.held = [15_000_000], threading.Event()
    env = {**os.environ, "HF_ENDPOINT": served.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    words = [sys.executable, "-m", "resurgence_harness.cli", "fetch", f"owner/lora@{COMMIT}", "--agree", "mit"]
    killed = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert served.held.wait(60)
    time.sleep(0.5)
    killed.kill()
    killed.wait()
    served.held, cache = None, tmp_path / "hf" / "hub"
    (part,) = cache.rglob("*.part")
    have = part.stat().st_size
    assert 0 < have < len(content) and content.startswith(part.read_bytes())

    hub = Hub(endpoint=served.address, cache=cache)
    (step,) = plan(items_named([f"owner/lora@{COMMIT}"]), hub)
    assert step.missing == len(content) - have
    fetch([step], hub, agreements=Agreements.here(), tell=lambda text: None)
    assert f"bytes={have}-" in [asked[2] for asked in served.asked]
    assert (locate(f"owner/lora@{COMMIT}", cache=cache).directory / "style.safetensors").read_bytes() == content


@pytest.mark.slow
def test_the_command(served: LocalHub, tmp_path: Path) -> None:
    """Planned, refused, fetched: what people see, with the exit codes; the real catalogue."""
    repo = catalogue()["clip-vit-b-32"].mirrors[0].repo
    served.repositories[repo] = Repository({"open_clip_model.safetensors": save({"a": np.ones(2)})}, licence="mit")
    env = {**os.environ, "HF_ENDPOINT": served.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}

    def resurgence(*words: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "resurgence_harness.cli", "fetch", *words],
            env=env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    planned = resurgence(f"clip@{COMMIT}", "gcd", "--dry-run")
    assert planned.returncode == 0 and "There is no mirror known for gcd" in planned.stdout, planned.stderr
    assert not (tmp_path / "weights").exists()
    refusing = resurgence(f"clip@{COMMIT}")
    assert refusing.returncode == 4 and "has not been agreed to" in refusing.stderr
    done = resurgence(f"clip@{COMMIT}", "--agree", "mit")
    assert done.returncode == 0 and "clip-vit-b-32-openai.safetensors" in done.stdout, done.stderr
    assert TOKEN not in planned.stdout + planned.stderr + refusing.stderr + done.stdout + done.stderr
