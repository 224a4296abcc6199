"""UCE's closed form: the identities of its paper, its two token rules, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion, difference, tensors
from resurgence_harness.diffusion.parameters import StrictKeyValue
from resurgence_harness.errors import SpecError
from resurgence_harness.specs import Concept
from resurgence_harness.unlearning import UCE, LastSubjectToken, SubjectAndAfter
from resurgence_harness.unlearning.uce import uce_map
from tests.tiny import NAMES, TOKENS, tiny_run

pytestmark = pytest.mark.slow

WIDTH = 64
ADA, BRAM, CLEO = (Concept(name=name, kind="a celebrity") for name in (NAMES[0], NAMES[1], NAMES[3]))
SCALES = {"erase_scale": 1.0, "preserve_scale": 1.0, "ridge": 0.5}


def _rows(count: int, *, seed: int, norm: float = 27.5) -> Tensor:
    """Synthetic text states [count, WIDTH] of about CLIP's norm."""
    rows = torch.randn(count, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    scaled: Tensor = norm * rows / rows.norm(dim=1, keepdim=True)
    return scaled


def _direct(w: Tensor, c: Tensor, v: Tensor, p: Tensor, wp: Tensor, *, ridge: float = 0.5) -> Tensor:
    """The normal equation as the paper writes it, for one matrix and given values."""
    left = ridge * w + v.T @ c + wp.T @ p
    right = ridge * torch.eye(w.shape[1], dtype=w.dtype) + c.T @ c + p.T @ p
    changed: Tensor = left @ torch.linalg.inv(right)
    return changed


@pytest.fixture
def w() -> Tensor:
    """One key matrix [48, WIDTH]."""
    return torch.randn(48, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(9)) / 8


def test_erased_tokens_read_as_their_anchors_and_kept_ones_stay(w: Tensor) -> None:
    """(a) Both residuals are at most 5e-3 at the default scales."""
    c, a, p = _rows(10, seed=0), _rows(10, seed=1), _rows(20, seed=2)

    changed = w @ uce_map(c, a, p, **SCALES)

    assert (changed @ c.T - w @ a.T).norm() / (w @ a.T).norm() <= 5e-3
    assert (changed @ p.T - w @ p.T).norm() / (w @ p.T).norm() <= 5e-3


def test_direct_delta_and_shared_forms_agree(w: Tensor) -> None:
    """(b) The three forms of the solution are one."""
    c, a, p = _rows(6, seed=0), _rows(6, seed=1), _rows(9, seed=2)
    h = 0.5 * torch.eye(WIDTH, dtype=torch.float64) + c.T @ c + p.T @ p

    shared = w @ uce_map(c, a, p, **SCALES)

    torch.testing.assert_close(shared, _direct(w, c, a @ w.T, p, p @ w.T), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(shared, w + w @ (a - c).T @ c @ torch.linalg.inv(h), rtol=1e-8, atol=1e-10)


def test_the_solution_minimises_the_objective(w: Tensor) -> None:
    """No small step away from W' lowers the paper's objective, with unequal scales."""
    c, a, p = _rows(6, seed=0), _rows(6, seed=1), _rows(9, seed=2)
    scales = {"erase_scale": 0.7, "preserve_scale": 0.3, "ridge": 2.0}

    def objective(x: Tensor) -> Tensor:
        erase = ((x @ c.T - w @ a.T) ** 2).sum()
        keep = ((x @ p.T - w @ p.T) ** 2).sum()
        return 0.7 * erase + 0.3 * keep + 2.0 * ((x - w) ** 2).sum()

    best = (w @ uce_map(c, a, p, **scales)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective(best), best)

    assert gradient.abs().max() < 1e-8 * objective(w)


def test_the_edits_rank_is_at_most_the_number_of_erased_tokens() -> None:
    """(e) rank(R − I) ≤ n."""
    edit = uce_map(_rows(3, seed=0), _rows(3, seed=1), _rows(9, seed=2), **SCALES)

    values = torch.linalg.svdvals(edit - torch.eye(WIDTH, dtype=torch.float64))

    assert values[2] > 1e-3 and values[3] < 1e-10


def test_limits_and_order(w: Tensor) -> None:
    """(f) λ → ∞ and s_e = 0 change nothing; nothing erased is the identity; the order of concepts does not matter."""
    c, a, p = _rows(6, seed=0), _rows(6, seed=1), _rows(9, seed=2)
    identity = torch.eye(WIDTH, dtype=torch.float64)
    order = torch.tensor([3, 5, 0, 2, 1, 4])

    torch.testing.assert_close(uce_map(c, a, p, **SCALES | {"ridge": 1e15}), identity, atol=1e-9, rtol=0)
    torch.testing.assert_close(uce_map(c, a, p, **SCALES | {"erase_scale": 0.0}), identity, atol=1e-9, rtol=0)
    torch.testing.assert_close(uce_map(c[:0], a[:0], p, **SCALES), identity, atol=1e-9, rtol=0)
    torch.testing.assert_close(uce_map(c[order], a[order], p, **SCALES), uce_map(c, a, p, **SCALES))


def test_a_second_run_towards_the_same_values_changes_little(w: Tensor) -> None:
    """(g) Starting from W' with the values of the original W gives W' again."""
    c, a, p = _rows(4, seed=0), _rows(4, seed=1), _rows(9, seed=2)
    once = w @ uce_map(c, a, p, **SCALES)

    again = _direct(once, c, a @ w.T, p, p @ w.T)

    assert (again - once).norm() / once.norm() < 5e-3


def test_the_residual_of_one_token_is_known_in_closed_form(w: Tensor) -> None:
    """(h) W'c − v* = λ / (λ + s_e ‖c‖²) (W c − v*)."""
    c, a = _rows(1, seed=0), _rows(1, seed=1)

    residual = w @ uce_map(c, a, c[:0], **SCALES) @ c[0] - w @ a[0]

    torch.testing.assert_close(residual, 0.5 / (0.5 + c.square().sum()) * (w @ c[0] - w @ a[0]), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_all_32_matrices_are_multiplied_by_one_map(load: Callable[[str], StableDiffusion], style: str) -> None:
    """(c, d) Exactly the 32 K/V matrices change, and one R explains them all."""
    model = load(style)
    step = UCE(concepts=(ADA,), preserve=(BRAM,))

    changed = step.apply(model, tiny_run(model))

    moved = difference(changed, model)
    erased, anchors, kept = step._tokens(model)
    edit = uce_map(erased, anchors, kept, **SCALES)
    assert len(moved) == 32
    assert set(moved) == {name for name in tensors(model) if StrictKeyValue().selects(name)}
    for name, value in moved.items():
        torch.testing.assert_close(value, (tensors(model)[name].double() @ edit).float(), rtol=1e-5, atol=1e-7)


def test_subject_and_after_aligns_names_with_their_anchor(model: StableDiffusion) -> None:
    """The name's last token meets the anchor's last token, and so on to the end of the shorter rest."""
    template = "a portrait of {} at event"
    step = UCE(concepts=(ADA,), anchor="a celebrity person", templates=(template,))

    erased, anchors, kept = step._tokens(model)

    texts = moves.encode_texts(model, ["a portrait of ada quill at event", "a portrait of a celebrity person at event"])
    assert torch.equal(erased, texts[0, 5 : 5 + TOKENS - 6])
    assert torch.equal(anchors, texts[1, 6:])
    assert torch.equal(kept, moves.encode_texts(model, [""])[0])


def test_preserved_texts_are_kept_whole_with_the_empty_text(model: StableDiffusion) -> None:
    """Under SubjectAndAfter every row of every preserved text and of "" is in P."""
    _, _, kept = UCE(concepts=(ADA,), preserve=(BRAM, CLEO))._tokens(model)

    assert torch.equal(kept, moves.encode_texts(model, [BRAM.name, CLEO.name, ""]).flatten(0, 1))


def test_last_subject_token_takes_one_row_a_text(model: StableDiffusion) -> None:
    """Under LastSubjectToken C, A and P hold the last token of each name, and "" is not preserved."""
    step = UCE(concepts=(ADA,), preserve=(BRAM, CLEO), tokens=LastSubjectToken())

    erased, anchors, kept = step._tokens(model)

    states = moves.encode_texts(model, [ADA.name, "a celebrity", BRAM.name, CLEO.name])[:, 2]
    assert torch.equal(erased, states[:1])
    assert torch.equal(anchors, states[1:2])
    assert torch.equal(kept, states[2:])


def test_an_anchor_of_spaces_is_the_empty_text(model: StableDiffusion) -> None:
    """As in the authors' code, its first row is the begin token's."""
    _, anchors, _ = UCE(concepts=(ADA,), anchor=" ")._tokens(model)

    assert torch.equal(anchors, moves.encode_texts(model, [""])[0, : len(anchors)])


@pytest.mark.parametrize("tokens", [SubjectAndAfter(), LastSubjectToken()])
def test_the_unlearned_model_answers_a_name_as_its_anchor(
    model: StableDiffusion, tokens: SubjectAndAfter | LastSubjectToken
) -> None:
    """Keys and values of the name's edited tokens are the anchor's; those of a preserved name are its own."""
    step = UCE(concepts=(ADA,), preserve=(CLEO,), tokens=tokens, ridge=0.05)

    changed = step.apply(model, tiny_run(model))

    erased, anchors, kept = step._tokens(model)
    old, new = tensors(model), tensors(changed)
    for name in difference(changed, model):
        assert (erased @ new[name].T - anchors @ old[name].T).norm() < 0.1 * (anchors @ old[name].T).norm()
        assert (kept @ new[name].T - kept @ old[name].T).norm() < 0.1 * (kept @ old[name].T).norm()


def test_the_anchor_is_the_concepts_kind_by_default() -> None:
    """Concept.kind serves where UCE.anchor is empty; without either there is no anchor."""
    assert UCE(concepts=(ADA,)).anchor_of(ADA) == "a celebrity"
    assert UCE(concepts=(ADA,), anchor="a person").anchor_of(ADA) == "a person"
    with pytest.raises(SpecError, match='has no anchor for "ada quill"'):
        UCE(concepts=(replace(ADA, kind=""),))


@pytest.mark.parametrize("anchor", ["ada quill", "Ada Quill ", "the first lady"])
def test_an_anchor_that_is_the_concept_is_refused(anchor: str) -> None:
    """Neither the name nor a synonym can be its own anchor."""
    with pytest.raises(SpecError, match='anchor for "ada quill" is the concept itself'):
        UCE(concepts=(replace(ADA, synonyms=("The First Lady",)),), anchor=anchor)


def test_a_name_cannot_be_erased_and_preserved() -> None:
    """The name or a synonym in both sets is refused; names that share a word are not."""
    UCE(concepts=(ADA,), preserve=(BRAM,))
    with pytest.raises(SpecError, match='"Ada Quill" both in its erase set'):
        UCE(concepts=(ADA,), preserve=(Concept(name="Ada Quill"),))
    with pytest.raises(SpecError, match='"ada quill" both in its erase set'):
        UCE(concepts=(ADA,), preserve=(Concept(name="the lady", synonyms=("ada quill",)),))
    with pytest.raises(SpecError, match='"bram quill" twice in its preserve set'):
        UCE(concepts=(ADA,), preserve=(BRAM, BRAM))


@pytest.mark.parametrize("templates", [(), ("a portrait",), ("{} and {}",), ("{}", "{}")])
def test_templates_hold_the_name_once(templates: tuple[str, ...]) -> None:
    """No template, one without a place, with two places, or one twice is refused."""
    with pytest.raises(SpecError, match="template"):
        UCE(concepts=(ADA,), templates=templates)


@pytest.mark.parametrize("bad", [{"erase_scale": -1.0}, {"preserve_scale": float("nan")}, {"ridge": 0.0}])
def test_scales_out_of_range_are_refused(bad: dict[str, float]) -> None:
    """Negative and NaN scales and a ridge of 0 have no solution to give."""
    with pytest.raises(SpecError, match=next(iter(bad))):
        UCE(concepts=(ADA,), **bad)  # type: ignore[arg-type]
