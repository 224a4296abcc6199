"""Where the time of an image goes at SD v1.4's size: `python -m benchmarks.sd_image --to sd_image.csv`.

One batch of the preset "sd" (8 images of 512 px, prompted and empty together 16 rows), random weights: one step of the
U-Net, one decoding, the texts, the noise, the way to the host. The U-Net and the decoder also in other ways (TF32
products, channels last, half precision, a captured graph, larger batches), each with how far its numbers lie from those
of the ordinary way. Nothing of this is a choice that the harness offers: the table says what one would save.
"""

from __future__ import annotations

import argparse
import copy
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.random_bases import random_base, tokenizer
from benchmarks.sd_path import device, versions
from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.training import fast_products
from tests.tiny import save_tiny_stable_diffusion

if TYPE_CHECKING:
    from torch import Tensor

STEPS, PIXELS = 50, 512
COLUMNS = ("part", "way", "images", "milliseconds", "seconds an image of 50 steps", "distance", "device", "versions")
TEXTS = tuple(f"A portrait of the {place}. person" for place in range(8))


class Timed(NamedTuple):
    """One part, done in one way."""

    part: str
    way: str
    images: int
    seconds: float
    times: int
    """How often an image needs it."""
    distance: float | None
    """‖difference‖ / ‖ordinary‖ of its numbers; None for the ordinary way."""


class Clock:
    """Times calls on a device that works on while Python goes ahead."""

    def __init__(self, on: str, repeats: int) -> None:
        """Each call is made `repeats` times after two that do not count."""
        self.on, self.repeats = on, repeats

    def __call__(self, call: Callable[[], Any]) -> tuple[float, Any]:
        """(seconds of one call, what it gave)."""
        for _ in range(2):
            given = call()
        self._wait()
        began = time.perf_counter()
        for _ in range(self.repeats):
            given = call()
        self._wait()
        return (time.perf_counter() - began) / self.repeats, given

    def _wait(self) -> None:
        import torch

        if self.on.startswith("cuda"):
            torch.cuda.synchronize()


def unet_steps(model: StableDiffusion, clock: Clock, batch: int, side: int) -> Iterator[Timed]:
    """One prediction with guidance of a batch, in every way."""
    import torch

    def inputs(images: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
        generator = torch.Generator("cpu").manual_seed(0)
        x = torch.randn(2 * images, 4, side, side, generator=generator)
        states = moves.encode_texts(model, TEXTS)[:1].expand(2 * images, -1, -1)
        return x.to(clock.on, kind), states.to(kind)

    def step(unet: Any, images: int = batch, kind: torch.dtype = torch.float32) -> Callable[[], Tensor]:
        x, states = inputs(images, kind)
        moment = torch.full((), 500, device=clock.on)
        return lambda: unet(x, moment, encoder_hidden_states=states, return_dict=False)[0]

    def timed(way: str, call: Callable[[], Tensor], images: int = batch) -> Timed:
        seconds, given = clock(call)
        return Timed("U-Net step", way, images, seconds, STEPS, _distance(given, ordinary, images == batch))

    unet = model.unet
    seconds, ordinary = clock(step(unet))
    yield Timed("U-Net step", "as it is", batch, seconds, STEPS, None)
    for images in (2 * batch, 4 * batch):
        yield timed("as it is", step(unet, images), images)
    if clock.on.startswith("cuda"):
        yield timed("captured graph", _captured(step(unet)))
    with fast_products(model):
        yield timed("as in training", step(unet))
    last = copy.deepcopy(unet).to(memory_format=torch.channels_last)
    yield timed("channels last", step(last))
    with fast_products(model):
        yield timed("channels last, as in training", step(last))
    for name, kind in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        half = copy.deepcopy(unet).to(kind)
        yield timed(name, step(half, kind=kind))
        yield timed(f"{name}, channels last", step(half.to(memory_format=torch.channels_last), kind=kind))
        if clock.on.startswith("cuda"):
            yield timed(f"{name}, channels last, captured graph", _captured(step(half, kind=kind)))


def decodings(model: StableDiffusion, clock: Clock, batch: int, side: int) -> Iterator[Timed]:
    """Latents to pixels of a batch, in every way; then the bytes to the host."""
    import torch

    x_0 = torch.randn(batch, 4, side, side, generator=torch.Generator("cpu").manual_seed(1)).to(clock.on)

    def decoded(vae: Any, latents: Tensor) -> Callable[[], Tensor]:
        return lambda: vae.decode(latents, return_dict=False)[0]

    seconds, ordinary = clock(decoded(model.vae, x_0))
    yield Timed("decode", "as it is", batch, seconds, 1, None)
    ways: list[tuple[str, AbstractContextManager[None], torch.dtype]] = [
        ("as in training", fast_products(model), torch.float32),
        ("channels last", nullcontext(), torch.float32),
        ("bfloat16, channels last", nullcontext(), torch.bfloat16),
    ]
    for way, within, kind in ways:
        vae = copy.deepcopy(model.vae).to(kind)
        vae = vae.to(memory_format=torch.channels_last) if "last" in way else vae
        with within:
            seconds, given = clock(decoded(vae, x_0.to(kind)))
        yield Timed("decode", way, batch, seconds, 1, _distance(given, ordinary))
    one, _ = clock(decoded(model.vae, x_0[:1]))
    yield Timed("decode", "one image at a time", 1, one, 1, None)
    drawn = moves.decode(model, x_0)
    yield Timed("to the host", "as it is", batch, clock(lambda: drawn.cpu().numpy())[0], 1, None)


def the_rest(model: StableDiffusion, clock: Clock, batch: int, side: int) -> Iterator[Timed]:
    """What is done once for a batch, or once for a block."""
    size = side * model.latent_factor
    seeds = range(batch)
    seconds, _ = clock(lambda: moves.initial_noise(model, seeds, height=size, width=size))
    yield Timed("noise", "as it is", batch, seconds, 1, None)
    yield Timed("texts", "as it is", len(TEXTS), clock(lambda: moves.encode_texts(model, TEXTS))[0], 1, None)


def _captured(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The same by one launch."""
    import torch

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        given = call()

    def replay(_reads: object = call) -> Tensor:  # the graph reads the call's inputs where they lie: they must stay
        graph.replay()
        return given

    return replay


def _distance(given: Tensor, ordinary: Tensor, comparable: bool = True) -> float | None:
    if not comparable:
        return None
    return float((given.float() - ordinary).norm() / ordinary.norm())


def main(argv: Sequence[str] | None = None) -> None:
    """The table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="the csv to write")
    parser.add_argument("--batch", type=int, default=8, help="images at once (default 8, as the preset)")
    parser.add_argument("--repeats", type=int, default=5, help="calls that are timed (default 5)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", type=Path, help="write a very small model here and time that: the same code on a CPU")
    args = parser.parse_args(argv)

    import torch

    if args.tiny is not None:
        tiny = save_tiny_stable_diffusion(args.tiny, tokenizer=tokenizer())
        model = StableDiffusion.load(tiny, args.device)
        side = model.sample_size // model.latent_factor
    else:
        model, side = random_base("sd14", args.device), PIXELS // 8
    clock = Clock(args.device, args.repeats)
    with args.to.open("w", newline="", encoding="utf-8") as file, torch.inference_mode():
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for part in (unet_steps, decodings, the_rest):
            for one in part(model, clock, args.batch, side):
                numbers = [f"{1000 * one.seconds:.2f}", f"{one.seconds * one.times / one.images:.4f}"]
                words = [one.part, one.way, str(one.images), *numbers]
                words.append("" if one.distance is None else f"{one.distance:.1e}")
                table.writerow([*words, device(args.device), versions()])
                file.flush()
                print(*words, sep="  ", flush=True)


if __name__ == "__main__":
    main()
