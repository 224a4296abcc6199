"""MACE: its three stages one by one, that concepts do not disturb one another, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.attention import watched
from resurgence_harness.diffusion.examples import Examples, drawn_examples
from resurgence_harness.diffusion.model import StableDiffusion, difference, tensors
from resurgence_harness.diffusion.parameters import StrictKeyValue
from resurgence_harness.errors import BuildError, SpecError
from resurgence_harness.specs import Concept, Probe, Prompt, Sampler
from resurgence_harness.unlearning import MACE, closed_form
from resurgence_harness.unlearning.mace import (
    TEMPLATES,
    Pair,
    ScaledTwice,
    fuse,
    fused,
    mace_map,
    matched,
)
from resurgence_harness.unlearning.mace_lora import (
    FocalTimesteps,
    LoRA,
    LoRAs,
    SquaredFrobeniusNorm,
    UniformTimesteps,
    draws,
    masked_norm,
    own_generator,
    train_together,
)
from resurgence_harness.unlearning.masks import GivenMasks, WholeImage, name_tokens
from tests.tiny import NAMES, TOKENS, tiny_run

pytestmark = pytest.mark.slow

Load = Callable[[str], StableDiffusion]

WIDTH = 24
ADA, BRAM, CLEO, DOV = (Concept(name=NAMES[place], kind="a celebrity") for place in (0, 1, 3, 4))
THREE = (ADA, BRAM, CLEO)
SHORT_TEMPLATES = ("{}", "a portrait of {}", "{} at event")


def _asking(concepts: tuple[Concept, ...]) -> Probe:
    prompts = tuple(Prompt(text=f"a photo of {one.name}", concept=one.name) for one in concepts)
    return Probe(prompts=prompts, seeds=(1, 2), sampler=Sampler(steps=2))


STEP = MACE(
    concepts=THREE,
    forget=_asking(THREE),
    preserve=(DOV,),
    masks=WholeImage(),
    templates=SHORT_TEMPLATES,
    iterations=3,
    learning_rate=1e-2,
    together=2,
)
ONE = replace(STEP, concepts=(ADA,), forget=_asking((ADA,)))


def _rows(count: int, *, seed: int) -> Tensor:
    """Synthetic text states [count, WIDTH] of about CLIP's norm."""
    generator = torch.Generator().manual_seed(seed)
    rows: Tensor = 5.6 * torch.randn(count, WIDTH, dtype=torch.float64, generator=generator)
    return rows


def _matrix(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) / 5


def _matrices(model: StableDiffusion) -> dict[str, Tensor]:
    return {name: value for name, value in tensors(model).items() if StrictKeyValue().selects(name)}


# Stage 1


def test_matched_tokens_are_all_but_the_subjects_own(load: Load) -> None:
    """(c) Before the name and after it, as far as both texts reach; no token of the name, both lists of one length."""
    for style in ("v1", "v2"):
        model = load(style)

        pair = matched(model, "ada quill", "a celebrity person", ("a portrait of {} at event", "{}"))

        name = moves.encode_texts(model, ["a portrait of ada quill at event", "ada quill"])
        anchor = moves.encode_texts(model, ["a portrait of a celebrity person at event", "a celebrity person"])
        # The subjects are tokens 4, 5 against 4, 5, 6, then 1, 2 against 1, 2, 3; the longer tail loses its last row.
        own = [name[0, :4], name[0, 6 : TOKENS - 1], name[1, :1], name[1, 3 : TOKENS - 1]]
        others = [anchor[0, :4], anchor[0, 7:], anchor[1, :1], anchor[1, 4:]]
        assert torch.equal(pair.name, torch.cat(own))
        assert torch.equal(pair.anchor, torch.cat(others))
        assert torch.equal(pair.name[:4], pair.anchor[:4])  # what stands before the name does not know it


def test_a_name_and_an_anchor_of_one_length_leave_out_the_name_alone(model: StableDiffusion) -> None:
    """(c) L − 2 rows a template for a name of two tokens, with any of the thirty templates."""
    pair = matched(model, "ada quill", "a celebrity", ("{}", "a portrait of {}"))

    assert pair.name.shape == pair.anchor.shape == (2 * (TOKENS - 2), 32)
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 30


def test_refinement_makes_the_words_around_a_name_read_as_the_anchors(model: StableDiffusion) -> None:
    """(b) ‖W₁ e^f − W₀ e^g‖ falls for nine in ten of the pairs that differ, by half in all; kept states move little."""
    pair = matched(model, "ada quill", "a celebrity", SHORT_TEMPLATES)
    keep = moves.encode_texts(model, ["a sketch of dov ferris"]).flatten(0, 1).double()
    free = mace_map([pair], 0 * closed_form.moment(keep), ridge=0.1)
    bound = mace_map([pair], 1e6 * closed_form.moment(keep), ridge=0.1)
    w = next(iter(_matrices(model).values())).double()
    name, anchor = (rows.double() for rows in pair)

    apart = (name - anchor).norm(dim=1) > 1e-3
    before = ((name - anchor)[apart] @ w.T).norm(dim=1)
    after = ((name @ free.T - anchor)[apart] @ w.T).norm(dim=1)

    assert apart.sum() > 30
    assert (after < before).float().mean() > 0.9 and after.norm() < 0.5 * before.norm()
    assert (keep @ bound.T - keep).norm() < 1e-3 * keep.norm() < (keep @ free.T - keep).norm() * 0.1


def test_refinement_minimises_its_objective() -> None:
    """No small step away from W₁ lowers Σ‖W e^f − W₀ e^g‖² + λ‖W − W₀‖² + tr (W − W₀) K (W − W₀)ᵀ."""
    pairs = [Pair(_rows(9, seed=0), _rows(9, seed=1)), Pair(_rows(7, seed=2), _rows(7, seed=3))]
    w, kept = _matrix(10, WIDTH, seed=4), 0.3 * closed_form.moment(_rows(30, seed=5))

    def objective(x: Tensor) -> Tensor:
        edit = sum((((x @ pair.name.T - w @ pair.anchor.T) ** 2).sum() for pair in pairs), torch.zeros(()))
        return edit + 2.0 * ((x - w) ** 2).sum() + ((x - w) @ kept @ (x - w).T).trace()

    best = (w @ mace_map(pairs, kept, ridge=2.0)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective(best), best)

    assert gradient.abs().max() < 1e-8 * objective(w)


# Stage 2


def _taught(
    model: StableDiffusion, step: MACE, masks: Tensor | None = None
) -> tuple[list[LoRAs], StableDiffusion, Examples, Tensor]:
    """The LoRAs of all of a step's concepts on an unrefined model."""
    changed = model.copy()
    pictures = drawn_examples(model, tiny_run(model), step.forget)
    masks = torch.ones(len(pictures.mean), 8, 8, dtype=torch.bool) if masks is None else masks
    run = tiny_run(model)
    loras, _ = train_together(step, step.concepts, changed, _matrices(changed), pictures, masks, run, before=0)
    return loras, changed, pictures, masks


def _mass(model: StableDiffusion, loras: LoRAs | None, pictures: Examples, masks: Tensor) -> float:
    """Attention to S inside the mask, over all layers, of a prompt that training has seen."""
    seen: list[Tensor] = []
    texts = ["a portrait of ada quill"] * 2
    tokens = name_tokens(model, [(text, "ada quill") for text in texts], closing=True)

    def watch(maps: Tensor) -> None:
        side = int(maps.shape[2] ** 0.5)
        inside = torch.nn.functional.interpolate(masks[:, None].float(), (side, side), mode="nearest-exact").flatten(1)
        seen.append((maps * tokens[:, None, None].float() * inside[:, None, :, None]).sum())

    def added(name: str, c: Tensor) -> Tensor:
        return torch.zeros(()) if loras is None else c @ loras[name].down.T @ loras[name].up.T

    noise = torch.randn(pictures.mean.shape, generator=torch.Generator().manual_seed(3))
    t = torch.tensor([300, 300])
    with torch.no_grad(), watched(model.unet, watch, added):
        moves.predict(model, moves.add_noise(model, pictures.mean, noise, t), t, moves.encode_texts(model, texts))
    return float(sum(seen))


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_a_lora_learns_not_to_look_at_the_name(load: Load, style: str) -> None:
    """(d) After 50 steps the attention to S inside the mask is less than half; nothing but the LoRA has changed."""
    model = load(style)
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[:, 2:6, 1:7] = True

    (loras,), changed, pictures, _ = _taught(model, replace(ONE, iterations=50, learning_rate=3e-2), masks)

    assert _mass(model, loras, pictures, masks) < 0.5 * _mass(model, None, pictures, masks)
    assert difference(changed, model) == {}
    assert not any(parameter.requires_grad for parameter in changed.unet.parameters())


def test_keys_and_values_get_gradient_and_the_last_value_gets_none(model: StableDiffusion) -> None:
    """(d) Of 64 thin matrices all move but those of the last layer's value, which nothing looks at."""
    (loras,), *_ = _taught(model, ONE)
    generator = own_generator(ONE.seed, ADA.name)

    assert set(loras) == set(_matrices(model)) and len(loras) == 32
    idle = [name for name, lora in loras.items() if not lora.up.any()]
    assert idle == ["unet.up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_v.weight"]
    for name, weight in _matrices(model).items():
        start = torch.randn(1, weight.shape[1], generator=generator)
        assert torch.equal(loras[name].down, start) == (name in idle)


def test_the_loss_is_the_formulas(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """(d) Σ_l ‖A_l[m_l, S]‖_F on the first batch, written out; its square under SquaredFrobeniusNorm."""
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :5, :5], masks[1, 3:, 3:] = True, True
    pictures = drawn_examples(model, tiny_run(model), ONE.forget)
    seen: dict[str, list[float]] = {"norm": [], "squared-norm": []}
    for step in (ONE, replace(ONE, penalty=SquaredFrobeniusNorm())):
        run = tiny_run(model, progress=lambda done, total, loss, into=seen[step.penalty.name]: into.append(loss))
        changed = model.copy()
        train_together(step, (ADA,), changed, _matrices(changed), pictures, masks, run, before=0)

    generator = own_generator(0, ADA.name)
    for weight in _matrices(model).values():
        torch.randn(1, weight.shape[1], generator=generator)
    density = torch.tensor(FocalTimesteps().density(1000))
    image, text, t, spread, noise = next(draws(ONE, ADA, generator, density, (4, 8, 8), 0))
    prompt = SHORT_TEMPLATES[int(text)].format("ada quill")
    x_0 = pictures.mean[image] + pictures.deviation[image] * spread
    maps: list[Tensor] = []
    with torch.no_grad(), watched(model.unet, maps.append):
        moves.predict(model, moves.add_noise(model, x_0, noise, t), t, moves.encode_texts(model, [prompt]))
    chosen = name_tokens(model, [(prompt, "ada quill")], closing=True)[0]
    norms = []
    for one in maps:
        side = int(one.shape[2] ** 0.5)
        inside = torch.nn.functional.interpolate(masks[image][:, None].float(), (side, side), mode="nearest-exact")
        norms.append(one[0][:, inside.flatten() > 0][:, :, chosen].square().sum().sqrt())
    assert seen["norm"][0] == pytest.approx(float(torch.stack(norms).sum()), rel=1e-4)
    assert seen["squared-norm"][0] == pytest.approx(float(torch.stack(norms).square().sum()), rel=1e-4)


def test_a_mask_that_vanishes_in_a_coarse_layer_gives_no_nan() -> None:
    """The norm of nothing has gradient 0."""
    maps = torch.rand(1, 2, 1, 5, requires_grad=True)
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 0, 0] = True

    norm = masked_norm(maps, mask, torch.ones(1, 5, dtype=torch.bool))
    norm.sum().backward()

    assert norm.item() == 0 and maps.grad is not None and not maps.grad.any()


def test_timesteps_follow_their_density() -> None:
    """(g) ξ has mean 300 and 90 % within 191 … 409; what is drawn has too. Uniform has mean 499.5."""
    density = torch.tensor(FocalTimesteps().density(1000), dtype=torch.float64)
    density /= density.sum()
    places = torch.arange(1000)
    spread = density.cumsum(0)
    assert float((density * places).sum()) == pytest.approx(300, abs=1)
    assert int((spread < 0.05).sum()) == pytest.approx(191, abs=2)
    assert int((spread < 0.95).sum()) == pytest.approx(409, abs=2)

    for rule, expected in ((FocalTimesteps(), density), (UniformTimesteps(), torch.full((1000,), 1e-3))):
        step = replace(ONE, batch=4000)
        drawn = next(draws(step, ADA, own_generator(0, "x"), torch.tensor(rule.density(1000)), (1, 1, 1), 0))
        found = drawn.t.bincount(minlength=1000).double().cumsum(0) / 4000
        assert (found - expected.double().cumsum(0)).abs().max() < 1.95 / 4000**0.5  # Kolmogorov–Smirnov, .001


def test_images_and_prompts_are_the_concepts_own() -> None:
    """Every batch holds images and prompts of its concept alone, each once before any comes again."""
    generator = own_generator(0, BRAM.name)
    drawing = draws(STEP, BRAM, generator, torch.ones(1000), (1, 1, 1), 3)

    drawn = [next(drawing) for _ in range(6)]

    assert sorted(int(one.image) for one in drawn[:2]) == [2, 3] == sorted(int(one.image) for one in drawn[2:4])
    assert sorted(int(one.text) for one in drawn[:3]) == [3, 4, 5] == sorted(int(one.text) for one in drawn[3:])


# Stage 3


def test_fusion_direct_and_delta_forms_agree() -> None:
    """(e) W₁ + […]A⁻¹ is [Σ (W₁ + dW) G + λ W₁ + W₀ K] A⁻¹."""
    w_0, w_1 = _matrix(10, WIDTH, seed=0), _matrix(10, WIDTH, seed=1)
    deltas = [_matrix(10, WIDTH, seed=2 + i) for i in range(3)]
    grams = [closed_form.moment(_rows(40, seed=9 + i)) for i in range(3)]
    kept = 0.2 * closed_form.moment(_rows(30, seed=20))
    read = sum(grams) + kept + 0.7 * torch.eye(WIDTH, dtype=torch.float64)

    delta = fused(w_0, w_1, sum(d @ g for d, g in zip(deltas, grams, strict=True)), kept, read)  # type: ignore[arg-type]

    left = sum(((w_1 + d) @ g for d, g in zip(deltas, grams, strict=True)), 0.7 * w_1 + w_0 @ kept)
    torch.testing.assert_close(delta, left @ torch.linalg.inv(read), rtol=1e-9, atol=1e-11)


def _fused(
    w_0: Tensor, w_1: Tensor, parts: list[tuple[LoRA, Tensor]], *, kept: float, ridge: float, rows: int = 30
) -> Tensor:
    matrices = {"w": w_1.clone()}
    moment = kept * closed_form.moment(_rows(rows, seed=20))
    fuse(matrices, {"w": w_0}, (({"w": lora}, own) for lora, own in parts), moment, ridge=ridge)
    return matrices["w"]


def test_limits_of_the_fusion() -> None:
    """(e) One LoRA alone is added; no LoRA on an unrefined model changes nothing; α₃ → ∞ gives W₀ back."""
    w_0, w_1 = _matrix(10, WIDTH, seed=0), _matrix(10, WIDTH, seed=1)
    lora = LoRA(_matrix(1, WIDTH, seed=2), _matrix(10, 1, seed=3))
    nothing = LoRA(lora.down, torch.zeros_like(lora.up))
    own = closed_form.moment(_rows(60, seed=4))

    alone = _fused(w_0, w_1, [(lora, own)], kept=0.0, ridge=0.0)
    torch.testing.assert_close(alone, w_1 + lora.up @ lora.down, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(_fused(w_0, w_0, [(nothing, own)], kept=3.0, ridge=0.1), w_0, rtol=0, atol=1e-12)
    back = _fused(w_0, w_1, [(lora, own)], kept=1e14, ridge=0.0)
    torch.testing.assert_close(back, w_0, rtol=0, atol=1e-8)


def test_the_order_of_concepts_in_the_fusion_does_not_matter() -> None:
    """(f) The parts are summed."""
    w_0, w_1 = _matrix(10, WIDTH, seed=0), _matrix(10, WIDTH, seed=1)
    parts = [
        (LoRA(_matrix(1, WIDTH, seed=2 + i), _matrix(10, 1, seed=30 + i)), closed_form.moment(_rows(40, seed=9 + i)))
        for i in range(4)
    ]

    torch.testing.assert_close(
        _fused(w_0, w_1, parts, kept=0.1, ridge=0.1), _fused(w_0, w_1, parts[::-1], kept=0.1, ridge=0.1)
    )


# The whole


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_exactly_the_32_matrices_move(load: Load, style: str) -> None:
    """(a) Every cross-attention key and value, and nothing else."""
    model = load(style)

    moved = difference(STEP.apply(model, tiny_run(model)), model)

    assert len(moved) == 32 and set(moved) == set(_matrices(model))


def test_without_loras_one_map_explains_all_matrices(model: StableDiffusion) -> None:
    """(b) W* = W₀ [R₁ + (I − R₁) K A⁻¹] where dW = 0: stages 1 and 3 multiply all 32 matrices by the same."""
    step = replace(ONE, iterations=1, learning_rate=1e-30)

    changed = step.apply(model, tiny_run(model))

    pair = matched(model, ADA.name, "a celebrity", SHORT_TEMPLATES)
    n = 8e4 * closed_form.moment(moves.encode_texts(model, step.prompts(DOV.name)))
    r = mace_map([pair], 1e-8 * n, ridge=0.1)
    eye = torch.eye(32, dtype=torch.float64)
    read = closed_form.moment(moves.encode_texts(model, step.prompts(ADA.name))) + 0.1 * eye + 1e-4 * n
    whole = r + (eye - r) @ (1e-4 * n) @ torch.linalg.inv(read)
    for name, value in _matrices(changed).items():
        torch.testing.assert_close(value, (tensors(model)[name].double() @ whole).float(), rtol=1e-4, atol=1e-6)


def _close(one: StableDiffusion, other: StableDiffusion, *, rtol: float = 1e-2) -> bool:
    """Whether two models' matrices are equal to rounding."""
    pairs = zip(_matrices(one).values(), _matrices(other).values(), strict=True)
    return all(bool((a - b).norm() <= rtol * a.norm()) for a, b in pairs)


def test_neither_order_nor_company_matters(model: StableDiffusion) -> None:
    """(f) Another order of concepts, or other groups in a forward pass, give the same model up to rounding."""
    plain = STEP.apply(model, tiny_run(model))

    turned = replace(STEP, concepts=THREE[::-1]).apply(model, tiny_run(model))
    alone = replace(STEP, together=1).apply(model, tiny_run(model))
    other = replace(STEP, seed=1).apply(model, tiny_run(model))

    assert _close(plain, turned) and _close(plain, alone)
    assert not _close(plain, other)  # which a difference this small could not hide


def test_twice_the_captions_at_half_the_weight_are_the_same(model: StableDiffusion) -> None:
    """(h) What is kept are sums."""
    step = replace(ONE, general=("a photo of event",), preserve_weight=100.0, train_preserve_scale=1e-2)
    step = replace(step, iterations=1)
    twice = replace(
        step,
        general=step.general * 2,
        preserve_weight=200.0,
        train_preserve_scale=5e-3,
        fuse_preserve_scale=5e-5,  # type: ignore[operator]
    )
    run = tiny_run(model)

    plain = step.apply(model, run)

    assert _close(plain, twice.apply(model, run), rtol=1e-5)
    assert not _close(plain, replace(twice, general=step.general).apply(model, run), rtol=1e-5)


def test_the_authors_scaling_is_theirs(model: StableDiffusion) -> None:
    """t applied twice is t² applied once."""
    once = replace(ONE, iterations=1, train_preserve_scale=1e-4)

    twice = replace(once, train_preserve_scale=1e-2, scaling=ScaledTwice()).apply(model, tiny_run(model))

    assert _close(once.apply(model, tiny_run(model)), twice, rtol=1e-6)
    assert not _close(twice, replace(once, train_preserve_scale=1e-2).apply(model, tiny_run(model)), rtol=1e-6)


def test_a_file_of_captions_is_the_same_as_its_lines(model: StableDiffusion, tmp_path: Path) -> None:
    """Its place is not in the key, its bytes are; a changed file is refused."""
    path = tmp_path / "captions.txt"
    path.write_text("a photo of event\n\na sketch\n")
    captions = closed_form.CaptionFile.of(path)
    run = tiny_run(model)

    from_file = closed_form.text_moment(model, run, captions)
    torch.testing.assert_close(from_file, closed_form.text_moment(model, run, ("a photo of event", "a sketch")))
    states = moves.encode_texts(model, ["a photo of event", "a sketch"]).double()
    torch.testing.assert_close(from_file, torch.einsum("nld,nle->de", states, states))
    assert captions == replace(captions, location="elsewhere")
    path.write_text("a photo\n")
    with pytest.raises(ValueError, match="have changed"):
        closed_form.text_moment(model, run, captions)


def test_progress_and_facts(model: StableDiffusion) -> None:
    """Updates are counted concept by concept to the declared total; losses, images and the masked part are told."""
    facts: dict[str, Any] = {}
    told: list[tuple[int, int]] = []
    run = tiny_run(model, record=facts.__setitem__, progress=lambda done, total, loss: told.append((done, total)))

    STEP.apply(model, run)

    assert STEP.updates == 9
    assert told == [(2, 9), (4, 9), (6, 9), (7, 9), (8, 9), (9, 9)]
    assert facts["images"] == 6 and facts["masked part of the images"] == 1.0
    assert set(facts["loss"]) == {"first", "last"}


# What it refuses


def test_an_empty_mask_stops_the_build(model: StableDiffusion, tmp_path: Path) -> None:
    """Before anything is trained."""
    masks = torch.ones(6, 8, 8, dtype=torch.bool)
    masks[4] = False
    step = replace(STEP, masks=GivenMasks.written(tmp_path / "masks.npy", masks.numpy()))

    with pytest.raises(BuildError, match='mask of "cleo marsh" in a forget image is empty'):
        step.apply(model, tiny_run(model))


def test_divergence_is_a_build_error(model: StableDiffusion) -> None:
    """An absurd learning rate ends in a sentence that names the step, never in a stored NaN."""
    with pytest.raises(BuildError, match="MACE's training diverged at step"):
        replace(ONE, learning_rate=1e38, iterations=20).apply(model, tiny_run(model))


def test_a_unet_that_reads_no_text_is_refused(model: StableDiffusion) -> None:
    """Where no key or value is found there is nothing to edit."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    deaf = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        mid_block_type=None,
        cross_attention_dim=32,
        norm_num_groups=8,
    )
    with pytest.raises(SpecError, match='"key-value" select none'):
        ONE.apply(replace(model, unet=deaf), tiny_run(model))


def test_an_unsolvable_closed_form_is_a_build_error() -> None:
    """Without a ridge, texts that do not fill the space have no unique solution."""
    with pytest.raises(BuildError, match="no unique solution"):
        mace_map([Pair(_rows(3, seed=0), _rows(3, seed=1))], torch.zeros(WIDTH, WIDTH).double(), ridge=0.0)


def test_contradictory_sets_are_refused() -> None:
    """Erased and preserved, an anchor that is the concept or missing, forget images that are not of the concepts."""
    with pytest.raises(SpecError, match='"ada quill" both in its erase set'):
        replace(ONE, preserve=(ADA,))
    with pytest.raises(SpecError, match="is the concept itself"):
        replace(ONE, anchor="Ada Quill")
    with pytest.raises(SpecError, match="has no anchor for"):
        replace(ONE, concepts=(replace(ADA, kind=""),))
    with pytest.raises(SpecError, match='no forget images of "bram quill"'):
        replace(ONE, concepts=(ADA, BRAM))
    with pytest.raises(SpecError, match='a prompt for "bram quill", which is not erased'):
        replace(ONE, forget=_asking((ADA, BRAM)))
    with pytest.raises(SpecError, match='does not contain its concept "ada quill"'):
        replace(ONE, forget=Probe(prompts=(Prompt(text="a person", concept="ada quill"),), seeds=(1,)))


@pytest.mark.parametrize(
    "bad",
    [
        *({"iterations": 0}, {"batch": 0}, {"together": 0}, {"rank": 0}, {"seed": -1}, {"learning_rate": 0.0}),
        *({"ridge": -1.0}, {"train_preserve_scale": -1.0}, {"fuse_preserve_scale": float("nan")}),
        {"preserve_weight": float("inf")},
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    """Each is a SpecError that names the field."""
    with pytest.raises(SpecError, match=f"MACE.{next(iter(bad))} must be"):
        replace(ONE, **bad)
