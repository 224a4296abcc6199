"""Stage 2: the text encoder, trained contrastively like CLIP's, and the judges, each with its calibration.

Judges are trained on renders and on reconstructions of renders (through the autoencoder, with noise on the latents),
never on samples of the U-Net.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from resurgence_harness.judging.micro import LABELS, name_images, new_network
from resurgence_harness.judging.micro_networks import ResidualNet
from resurgence_harness.microworld import vocabulary, world
from resurgence_harness.microworld.training.layouts import family_of, new_text_encoders, new_tokenizers
from resurgence_harness.microworld.training.pool import (
    Pool,
    Progress,
    batches,
    cosine,
    descend,
    half_precision,
    pixels,
    render_pool,
    set_rate,
)
from resurgence_harness.microworld.training.settings import Settings


def tokens_of(tokenizer: Any, captions: list[str]) -> Tensor:
    """int64 [n, TOKENS]."""
    ids = tokenizer(captions, padding="max_length", truncation=True, max_length=vocabulary.TOKENS)["input_ids"]
    return torch.tensor(ids)


def train_text_encoder(out: Path, settings: Settings, device: torch.device) -> None:
    """Train on pairs of pictures and captions; all pairs with the same subject and style are positives.

    In SDXL's layout both text encoders are trained against the same image network, each by its own pooled state.
    """
    family = family_of(settings)
    if all((out / part / "model.safetensors").exists() for part in family.encoders):
        print("text encoder: present already", flush=True)
        return
    tokenizers = new_tokenizers(settings)
    pool = render_pool(settings.pool, seed=2, device=device)
    tokens = [tokens_of(tokenizer, pool.captions).to(device) for tokenizer in tokenizers.values()]
    meaning: dict[tuple[int, int, int], int] = {}
    styles_ = [world.style_of(text) for text in pool.captions]
    keys = zip(pool.family.tolist(), pool.subject.tolist(), styles_, strict=True)
    same = torch.tensor([meaning.setdefault(key, len(meaning)) for key in keys], device=device)
    torch.manual_seed(21)
    encoders = {name: one.to(device) for name, one in new_text_encoders(settings, tokenizers).items()}
    texts, widths = list(encoders.values()), [one.config.projection_dim for one in encoders.values()]
    joint = max(widths)
    image = ResidualNet(joint, (48, 96, 160, 192)).to(device)
    projects = nn.ModuleList([nn.Linear(width, joint, bias=False) for width in widths]).to(device)
    temperature = nn.Parameter(torch.tensor(2.65, device=device))
    modules = nn.ModuleList([*texts, image, projects])
    optimiser = torch.optim.AdamW([*modules.parameters(), temperature], lr=1e-3, weight_decay=1e-2)
    source = batches(len(pool), settings.text_batch, generator=torch.Generator(device).manual_seed(22), device=device)
    progress = Progress("text encoder", settings.text_steps, settings.text_batch, seconds=settings.seconds)

    def loss_of(ids: list[Tensor], x: Tensor, group: Tensor) -> Tensor:
        b = nn.functional.normalize(image(x).float(), dim=1)
        positive = (group[:, None] == group[None]).float()
        target = positive / positive.sum(1, keepdim=True)
        total = torch.zeros((), device=device)
        for text, project, own in zip(texts, projects, ids, strict=True):
            a = nn.functional.normalize(project(pooled(text(input_ids=own))).float(), dim=1)
            logits = a @ b.T * temperature.exp().clamp(max=100)
            ahead, back = (target * logits.log_softmax(1)).sum(1), (target.T * logits.T.log_softmax(1)).sum(1)
            total = total - (ahead.mean() + back.mean()) / 2
        return total

    for step in progress:
        index = next(source)
        set_rate(optimiser, 1e-3 * cosine(step, progress.steps))
        x = pixels(pool.images[index])
        x = x + 0.05 * torch.randn_like(x)
        with half_precision(device):
            loss = loss_of([each[index] for each in tokens], x, same[index])
        progress.step(step, descend(modules, optimiser, loss))
    for name, tokenizer in tokenizers.items():
        tokenizer.save_pretrained(out / name)
    for name, text in encoders.items():
        text.half().save_pretrained(out / name)


def pooled(read: Any) -> Tensor:
    """A text encoder's pooled state, projected if it has a projection."""
    projected: Tensor | None = getattr(read, "text_embeds", None)
    plain: Tensor = read.pooler_output if projected is None else projected
    return plain


JUDGES = {
    "identity": "celebrity",
    "second-identity": "celebrity",
    "object": "object",
    "character": "character",
    "hazard": "hazard",
}
"""Each shipped judge and the family that it recognises; its labels and its network are in `judging.micro`."""


def reconstructions(vae: Any, images: Tensor, *, noise: float, generator: torch.Generator) -> Tensor:
    """Autoencoder reconstructions of pictures uint8 [n, 3, s, s], with noise on the latents of up to `noise` times
    their standard deviation."""
    out = []
    for start in range(0, len(images), 1_024):
        x = pixels(images[start : start + 1_024])
        with torch.inference_mode(), half_precision(x.device):
            z = vae.encode(x).latent_dist.mean.float()
            scale = (
                noise * torch.rand(len(z), 1, 1, 1, device=z.device, generator=generator) / vae.config.scaling_factor
            )
            y = vae.decode(z + scale * torch.randn(z.shape, device=z.device, generator=generator)).sample.float()
        out.append(((y.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
    return torch.cat(out)


def targets(pool: Pool, family: str, classes: int) -> Tensor:
    """Soft labels [n, classes]: uniform over celebrities for a stranger; the last label for any other family."""
    k = world.FAMILIES.index(family)
    out = torch.zeros(len(pool), classes, device=pool.images.device)
    mine = pool.family == k
    out[mine.nonzero().squeeze(1), pool.subject[mine]] = 1
    other = ~mine
    if family == "celebrity":
        strangers = pool.family == world.FAMILIES.index("stranger")
        out[strangers, : classes - 1] = 1 / (classes - 1)
        other = other & ~strangers
    out[other, classes - 1] = 1
    return out


def train_judge(
    name: str, pictures: Tensor, labels: Tensor, settings: Settings, device: torch.device, *, seed: int
) -> nn.Module:
    """Train one classifier on pictures with soft labels; noise, blur and brightness as augmentation."""
    torch.manual_seed(seed)
    net: nn.Module = new_network(name).to(device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=2e-2)
    generator = torch.Generator(device).manual_seed(seed + 1)
    steps = settings.judge_steps if JUDGES[name] == "celebrity" else max(settings.judge_steps // 3, 2)
    source = batches(len(pictures), settings.judge_batch, generator=generator, device=device)
    progress = Progress(f"judge {name}", steps, settings.judge_batch)
    for step in progress:
        index = next(source)
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * cosine(step, steps, warmup=200)
        x = pixels(pictures[index])
        n = (len(index), 1, 1, 1)
        blurred = nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        x = torch.lerp(x, blurred, torch.rand(n, device=device) * (torch.rand(n, device=device) < 0.5))
        x = x * (1 + 0.2 * (torch.rand(n, device=device) - 0.5)) + 0.1 * (torch.rand(n, device=device) - 0.5)
        x = x + 0.12 * torch.rand(n, device=device) * torch.randn_like(x)
        with half_precision(device):
            loss = nn.functional.cross_entropy(net(x), labels[index])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        progress.step(step, loss.detach())
    return net.eval()


def calibrate(
    net: nn.Module, name: str, pool: Pool, kinds: dict[str, Tensor], device: torch.device
) -> dict[str, dict[str, int]]:
    """Counts of the judge's answers on held-out pictures: subjects recognised, and false alarms on other pictures.

    `kinds` gives the pool's pictures uint8 [n, 3, s, s] by kind. Strangers are left out for judges of people, since
    such a judge gives each of them some name.
    """
    family, labels = world.FAMILIES.index(JUDGES[name]), LABELS[name]
    mine, subjects = (pool.family == family).tolist(), pool.subject.tolist()
    stranger = (pool.family == world.FAMILIES.index("stranger")).tolist()
    other = [not m and not (s and JUDGES[name] == "celebrity") for m, s in zip(mine, stranger, strict=True)]
    out = {}
    for kind, pictures in kinds.items():
        answers, _ = name_images(net, labels, pictures.permute(0, 2, 3, 1).cpu().numpy(), str(device))
        named = [answer in labels[:-1] for answer in answers]
        right = sum(m and answer == labels[k] for m, answer, k in zip(mine, answers, subjects, strict=True))
        alarms = sum(o and n for o, n in zip(other, named, strict=True))
        counts = {"recognised": right, "subjects": sum(mine), "false_alarms": alarms}
        out[kind] = {**counts, "others": sum(other)}
    return out


def calibrate_judges(out: Path, settings: Settings, device: torch.device, probe: nn.Module | None = None) -> None:
    """Count the answers of the judges in `out/judges` on held-out pictures, and write `calibration.json`."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(out / "vae").float().to(device).eval()
    test = render_pool(settings.held_out, seed=4, device=device)
    exact = reconstructions(vae, test.images, noise=0.0, generator=torch.Generator(device).manual_seed(31))
    kinds = {"renders": test.images, "reconstructions": exact}
    report = {}
    for name in JUDGES:
        report[name] = calibrate(load_judge(out / "judges", name, device), name, test, kinds, device)
        print(name, json.dumps(report[name]), flush=True)
    if probe is not None:
        print("probe", json.dumps(calibrate(probe, "identity", test, kinds, device)), flush=True)
    (out / "judges" / "calibration.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")


def load_judge(folder: Path, name: str, device: torch.device) -> nn.Module:
    """A trained judge's network."""
    net: nn.Module = new_network(name)
    net.load_state_dict(load_file(folder / f"{name}.safetensors"), strict=False)
    return net.float().to(device).eval()


def train_judges(out: Path, settings: Settings, device: torch.device) -> None:
    """Train the five judges, count their calibration, and train a comparison judge on renders alone."""
    from diffusers import AutoencoderKL

    folder = out / "judges"
    if (folder / "calibration.json").exists():
        print("judges: present already", flush=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    vae = AutoencoderKL.from_pretrained(out / "vae").float().to(device).eval()
    pool = render_pool(settings.pool, seed=3, device=device)
    generator = torch.Generator(device).manual_seed(30)
    half = reconstructions(vae, pool.images[: len(pool) // 2], noise=0.3, generator=generator)
    mixed = torch.cat([half, pool.images])
    for k, (name, family) in enumerate(JUDGES.items()):
        labels = targets(pool, family, len(LABELS[name]))
        doubled = torch.cat([labels[: len(half)], labels])
        net = train_judge(name, mixed, doubled, settings, device, seed=300 + 10 * k)
        tensors = {
            key: value.half().contiguous().cpu() for key, value in net.state_dict().items() if value.is_floating_point()
        }
        save_file(tensors, folder / f"{name}.safetensors")
    labels = targets(pool, "celebrity", len(LABELS["identity"]))
    probe = train_judge("identity", pool.images, labels, settings, device, seed=900)
    calibrate_judges(out, settings, device, probe)
