"""LoRA: W ← W + weight · scale · B A, with scale = alpha / rank (alpha / √rank for rank-stabilised ones).

    unet.….to_q.lora_A.weight · .lora.down.weight · .processor.to_q_lora.down.weight       diffusers and peft
    lora_unet_…_to_q.lora_down.weight · lora_te_….alpha · lora_te1_… · lora_te2_…          kohya, web interfaces
    ….lora_magnitude_vector · ….dora_scale                                                 DoRA, see `dora`

Linear layers and convolutions, U-Net and text encoder. Each key must match the name of one of the base's layers, as one
of these layouts spells it, else it is an error: a file whose keys match nothing would leave the base unchanged, and
look safe. The scale, too, is the one that peft, diffusers or the trainer would use (`adapter_settings`,
`trainer_notes`), or the file is refused. The tests compare the results with peft's and diffusers' own fused weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from resurgence_harness.diffusion.formats.adapter_settings import CONFIG, FUSE, OWN, Settings, settings_of
from resurgence_harness.diffusion.formats.contract import (
    OTHER_BASE,
    Changes,
    Edit,
    Format,
    without_ones,
)
from resurgence_harness.diffusion.formats.dora import magnitude, rescaled
from resurgence_harness.diffusion.formats.kinship import check_family
from resurgence_harness.diffusion.formats.lora_keys import ALPHA, DOWN, MAGNITUDE, UP, Layer, layers_of
from resurgence_harness.diffusion.formats.predicting import check_prediction
from resurgence_harness.diffusion.formats.trainer_notes import check_notes
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.diffusion.tensor_files import TensorFile, shown
from resurgence_harness.errors import UserError, sentence


@final
@dataclass(frozen=True, kw_only=True)
class Lora(Format):
    """Low-rank updates of some layers."""

    label: ClassVar[str] = "a LoRA"
    order: ClassVar[int] = 1

    file: TensorFile

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and adapter_config.json if that applies to it."""
        config = self.file.path.with_name(CONFIG)
        own = self.file.path.name == OWN and config.is_file()
        return (self.file.path, config) if own else (self.file.path,)

    def changes(self, parent: ModelFiles) -> Changes:
        """One change per layer; UserError if a key matches no layer of the base, or the scale is unknown."""
        check_family(self.file, parent)
        check_prediction(self.file, parent)
        layers = layers_of(self.file, parent)
        settings = settings_of(self.file, list(self.file.entries))
        self._check_origin(layers, settings)
        ranks = {name: self._rank(name, layer, parent) for name, layer in layers.items()}
        alphas = {name: self._alpha(layer.keys[ALPHA]) for name, layer in layers.items() if ALPHA in layer.keys}
        if 0 < len(alphas) < len(layers):
            raise self._odd("alpha", f"for {len(alphas)} of {len(layers)} layers; programs differ on the others")
        check_notes(self.file, ranks.values(), alphas.values())
        changes: Changes = {}
        for name, layer in layers.items():
            scale = self._scale(name, layer, ranks[name], settings, alphas.get(name))
            decomposed = self._decomposed(name, layer, parent, settings)
            apply = self._added(layer.keys, ranks[name], scale * self.source.weight, decomposed)
            changes[name] = Edit(apply=apply, added=True, alone=decomposed is not None)
        return changes

    def _check_origin(self, layers: Mapping[str, Layer], settings: Mapping[str, Settings]) -> None:
        """UserError if peft's internal names come without the settings that peft always writes: no scale is known."""
        parts = {name.partition(".")[0] for name in layers}
        bare = any(layer.bare for layer in layers.values())
        if len(parts) > 1 and settings and bare:
            raise self._odd("settings of one network", f"for layers of {' and '.join(sorted(parts))}")
        peft = next((layer for layer in layers.values() if layer.peft), None)
        if peft is not None and not settings:
            raise UserError(
                sentence(
                    f"The LoRA {self.file.path} lacks the settings that determine its scale.",
                    key=shown(peft.keys[DOWN]),
                    expected=f"{OWN} beside its {CONFIG}, as save_pretrained() writes them",
                    do="Give the folder that save_pretrained() wrote, its files not renamed.",
                )
            )

    def _rank(self, name: str, layer: Layer, parent: ModelFiles) -> int:
        """The rank of a layer's matrices; UserError if they do not fit the base's weight."""
        down, up = (self.file.entries[layer.keys[role]].shape for role in (DOWN, UP))
        shape = parent[name].entry.shape
        rank = down[0] if down else 0
        fits = len(up) >= 2 and rank and without_ones(up) == without_ones((shape[0], rank))
        if not fits or without_ones(down[1:]) != without_ones(shape[1:]):
            raise UserError(
                sentence(
                    f"The LoRA {self.file.path} has a layer of another shape than the base.",
                    layer=name,
                    down_and_up=f"{down} and {up}",
                    base=shape,
                    do=OTHER_BASE,
                )
            )
        return rank

    def _alpha(self, key: str) -> float:
        values = self.file.values(key)
        if values.size != 1:
            raise self._odd(key, f"{values.size} numbers")
        alpha = float(values.item())
        if not 0 < abs(alpha) < 1e6:  # 0 would leave the base unchanged; trainers read it as alpha = rank
            raise self._odd(key, alpha)
        return alpha

    def _scale(
        self, name: str, layer: Layer, rank: int, settings: Mapping[str, Settings], alpha: float | None
    ) -> float:
        """alpha / rank, or the settings' scale; 1 without either, as in diffusers and the web interfaces."""
        part, _, plain = name.removesuffix(".weight").partition(".")
        mine = settings.get(part)
        noted = None
        if mine is not None:
            plain = plain.removeprefix("text_model.")
            other = {False: f"text_model.{plain}", True: plain}[layer.wrapped] if part != "unet" else plain
            noted = mine.scale(f"text_model.{plain}" if layer.wrapped else plain, rank, otherwise=other)
        if alpha is None:
            return 1.0 if noted is None else noted
        if noted is not None and abs(noted - alpha / rank) > 1e-3 * abs(noted):
            raise self._odd(layer.keys[ALPHA], f"{alpha:g} of rank {rank}; the settings say a scale of {noted:g}")
        return alpha / rank

    def _decomposed(
        self, name: str, layer: Layer, parent: ModelFiles, settings: Mapping[str, Settings]
    ) -> Callable[[], np.ndarray] | None:
        """A function that reads the magnitudes of a DoRA's layer; None for a layer without any."""
        part = name.partition(".")[0]
        key = layer.keys.get(MAGNITUDE)
        if part in settings and settings[part].dora is (key is None):
            raise self._odd("use_dora", f"{settings[part].dora}, which the tensors of {name} contradict")
        if key is None:
            return None
        if self.source.weight != 1:
            raise self._odd("a weight of a DoRA", f"{self.source.weight:g}; programs differ on what it means")
        return magnitude(self.file, key, name, parent[name].entry.shape)

    def _added(
        self, keys: Mapping[str, str], rank: int, scale: float, decomposed: Callable[[], np.ndarray] | None
    ) -> Callable[[np.ndarray], np.ndarray]:
        def apply(weight: np.ndarray) -> np.ndarray:
            down, up = (np.asarray(self.file.values(keys[role]), np.float32) for role in (DOWN, UP))
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # refused on writing
                product = up.reshape(len(up), rank) @ down.reshape(rank, -1)
                found = np.asarray(weight + np.float32(scale) * product.reshape(weight.shape))
                if decomposed is None:
                    return found
                return rescaled(found, decomposed(), eps=keys[MAGNITUDE].endswith("dora_scale"))

        return apply

    def _odd(self, setting: str, value: object) -> UserError:
        return UserError(
            sentence(
                f"The LoRA {self.file.path} has a setting that is not supported.",
                setting=shown(f"{setting} = {value}"),
                do=FUSE,
            )
        )
