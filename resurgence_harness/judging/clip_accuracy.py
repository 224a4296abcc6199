"""CLIP accuracy: which of these labels is in the picture?

    p(label | picture) = softmax over labels of 100 · cos(picture, "a photo of the {label}")    answer: the likeliest

A hit means "of all the labels, the prompted concept has the highest probability". It gives a label to every picture,
even to noise: chance level is 1 / number of labels.

*Two statistics have this name.* MACE (Lu et al., CVPR 2024) reports the mean softmax probability of the prompted class:
`asked_probability`. The resurgence authors report hard accuracy (inferred: their scores are exact multiples of 1/200,
1/600 and 1/1000): this judge's answers. Verdicts use hard accuracy, since judgments are hits or not; do not compare
them with MACE's numbers.
*Synonyms:* pictures prompted with a synonym are scored against the class's own label, as MACE does.
*Weights:* OpenAI's CLIP ViT-B/32 in safetensors, provided by the user (code MIT; the model card asks for research use
and against deployment). No sha256 is published for that format, so none is pinned unless the user pins one.
*Calibration and canaries:* counted by the user on known pictures (`calibrating.py`); without them it gives no verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.judging.calibrating import canaries_of, counts_of
from resurgence_harness.judging.clip import Clip, digest_of_parts
from resurgence_harness.judging.contract import Calibration, check_images
from resurgence_harness.judging.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

VIT_B_32 = Clip(
    architecture="ViT-B-32-quickgelu",
    weights=Weights(
        file="clip-vit-b-32-openai.safetensors",
        source="open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai on the Hugging Face hub",
        licence="MIT (code); OpenAI's model card limits use",
    ),
)
"""OpenAI's ViT-B/32, as in the paper."""
LOGIT_SCALE = 100.0
"""CLIP's logit scale, as in its model card; it affects probabilities but never the answer."""


@dataclass(frozen=True, kw_only=True)
class ClipAccuracy:
    """CLIP's most probable label. Creating one reads no weights and imports no torch.

    UserError for fewer than two labels, empty or repeated ones, or a template without "{}".
    """

    version: ClassVar[int] = 1
    name: str = "clip-accuracy"
    labels: tuple[str, ...]
    """Every answer it can give: the task's classes, erased and retained."""
    clip: Clip = VIT_B_32
    template: str = "a photo of the {}"
    """The prompt for a label, with "{}" in place of the label."""

    def __post_init__(self) -> None:
        folded = [label.strip().casefold() for label in self.labels]
        if len(folded) < 2 or "" in folded:
            raise UserError(
                sentence(
                    f"Judge {self.name} has too few labels to choose from, or an empty one.",
                    labels=self.labels,
                    do="Give at least two labels, none of them empty; with a single one every picture would be a hit.",
                )
            )
        if len(set(folded)) < len(folded):
            twice = next(label for label, one in zip(self.labels, folded, strict=True) if folded.count(one) > 1)
            raise UserError(
                sentence(
                    f'Judge {self.name} has the label "{twice}" twice.',
                    do="Equal labels share their hits, which would look like an erasure; give each once.",
                )
            )
        if "{}" not in self.template:
            raise UserError(
                sentence(
                    f'The template "{self.template}" has no place for the label.', do='Put "{}" where the label goes.'
                )
            )

    @property
    def digest(self) -> str:
        """sha256 over the model, the labels and the template: with other labels it is another judge."""
        return digest_of_parts(self.clip.digest, list(self.labels), self.template)

    @property
    def given(self) -> tuple[Weights, ...]:
        """Weights that the user must provide."""
        return (self.clip.weights,)

    def shows(self, answer: str) -> tuple[str, ...]:
        """The label itself."""
        return (answer,)

    def check(self, names: Sequence[str]) -> None:
        """No further check: only the weights are needed."""

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """The likeliest label of each image uint8 [n, h, w, 3], and its probability [n]."""
        found = self.probabilities(images, device)
        return [self.labels[index] for index in found.argmax(1)], found.max(1)

    def probabilities(self, images: np.ndarray, device: str) -> np.ndarray:
        """The probability [n, labels] of every label for each image; rows add up to 1."""
        check_images(images, judge=self.name)
        texts = self.clip.text_features([self.template.format(label) for label in self.labels], device)
        logits = LOGIT_SCALE * self.clip.image_features(images, device) @ texts.T
        found: np.ndarray = logits.double().softmax(1).cpu().numpy()
        return found

    def asked_probability(self, images: np.ndarray, asked: Sequence[str], device: str) -> np.ndarray:
        """The probability [n] of each image's prompted label; its mean is MACE's statistic.

        UserError unless there is one of the judge's labels for each image.
        """
        if len(asked) != len(images):
            raise UserError(
                sentence(f"There are {len(images)} images and {len(asked)} labels.", do="Give one label per image.")
            )
        unknown = sorted(set(asked) - set(self.labels))
        if unknown:
            raise UserError(
                sentence(
                    f'"{unknown[0]}" is not a label of judge {self.name}.',
                    labels=", ".join(self.labels),
                    do="Give one of its labels; a synonym is scored against its class's label.",
                )
            )
        found = self.probabilities(images, device)
        picked: np.ndarray = found[range(len(asked)), [self.labels.index(label) for label in asked]]
        return picked

    def calibration(self) -> dict[str, Calibration]:
        """Counts that the user stored with `calibrating.keep`; empty if there are none."""
        return counts_of(self)

    def canaries(self) -> tuple[int, int]:
        """(answered correctly, total) of the stored canaries; (0, 0) if there are none."""
        return canaries_of(self)
