"""Training in float16: passes whose activations are float16, of weights, gradients and moments in float32.

    f_θ(x_t, t, c)    computed with float16 copies of the weights θ; norms, sums and what is returned are float32
    ∂L/∂θ             float32: ∂L/∂f is multiplied by a power of two s, and the float16 gradients are divided by it
    s                 2^⌊log₂(NORM / ‖∂L/∂f‖)⌋ for each backward pass: below 6e-8 float16 has no numbers

Within `half_training` every `moves.predict` outside of `exact_products` is such a pass, so that a step's own losses,
its clipping and its optimiser stay what they are. On a GPU the second pass of a shape is captured as a CUDA graph,
which later ones replay: at SD's size a step of a few images is limited by launching kernels.

A gradient beyond float16's range (65,504) sets `found`, with which the optimisers skip the update; `descend` ends the
training with an error. Nothing is repeated in another arithmetic. Where Triton is missing, and for U-Nets that
`training_forward` does not know, passes are diffusers' modules under autocast, and `way` says so.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from resurgence_harness.diffusion.attention import Watched
from resurgence_harness.diffusion.half.drawing import LEAST_CAPABILITY, has_triton
from resurgence_harness.diffusion.precision import HALF

NORM = 256.0
"""‖∂L/∂f‖ after scaling: about what dynamic loss scaling starts from (2¹⁶) for a batch of a few images."""
RANGE = (2.0**-24, 2.0**40)
"""Smallest and largest s."""
KINDS = ("to_k", "to_v")
KERNELS, PLAIN = "triton", "plain modules under autocast"
"""How passes are computed."""


@contextmanager
def half_training(
    device: Any, *, graphs: bool = True, dtype: torch.dtype = torch.float16, kernels: bool | None = None
) -> Iterator[HalfTraining]:
    """Within the context `moves.predict` computes in `dtype`; float32 is for tests of the passes themselves.

    `kernels`: whether U-Nets that `training_forward` knows are computed by it; None: where Triton compiles.
    """
    training = HalfTraining(torch.device(device), graphs=graphs, dtype=dtype, kernels=kernels)
    token = HALF.set(training)
    try:
        yield training
    finally:
        HALF.reset(token)
        training.close()


class HalfTraining:
    """The passes of one training, by U-Net."""

    def __init__(self, device: torch.device, *, graphs: bool, dtype: torch.dtype, kernels: bool | None = None) -> None:
        """`graphs`: capture repeated passes where the device is a GPU; `kernels` as in `half_training`."""
        self.device, self.dtype, self.graphs = device, dtype, graphs and device.type == "cuda"
        self.kernels = _kernels_run(device) if kernels is None else kernels
        self.found = torch.zeros((), device=device)
        """1 once a gradient was not finite."""
        self.ways: set[str] = set()
        """KERNELS or PLAIN, or both, as passes were made."""
        self._known: dict[int, _Passes] = {}

    def predict(
        self, unet: Any, x_t: Tensor, t: Tensor | int, states: Tensor, further: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """f_θ(x_t, t, c) in float32, with gradients if they are enabled; watched cross-attention is watched.

        `further`: added conditions by their names in diffusers (`moves.added_conditions`).
        """
        mine = self._known.get(id(unet))
        if mine is None:
            mine = self._known[id(unet)] = _Passes(self, unet)
        self.ways.add(mine.way)
        t = torch.as_tensor(t, device=x_t.device).expand(len(x_t))
        return mine(x_t, t, states, further or {})

    def close(self) -> None:
        """Free copies and graphs; weights get back the memory format that they had."""
        for passes in self._known.values():
            passes.close()
        self._known.clear()


class _Passes:
    """Forward and backward passes of one U-Net, through float16 copies of its weights."""

    def __init__(self, training: HalfTraining, unet: Any) -> None:
        self.training, self.unet, self.dtype = training, unet, training.dtype
        self.parameters = list(unet.parameters())
        self.layers = [layer for layer in unet.modules() if hasattr(layer, "processor")]
        self.way = KERNELS if training.kernels and _fits(unet) else PLAIN
        self.turned = [p for p in self.parameters if p.ndim == 4 and p.requires_grad and not _last(p)]
        for parameter in self.turned:  # so that weights, gradients, moments and copies have one order
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        whole = _whole(unet) if self.way == KERNELS else {id(p) for p in self.parameters}
        self.slots = [p.detach() if id(p) in whole else self._slot(p) for p in self.parameters]
        self.versions: list[int | None] = [None] * len(self.slots)
        self.captured: dict[_Call, _Captured | None] = {}
        self.pool: Any = None
        self.pending: Any = lambda: None
        """A weak reference to the state of the forward pass whose backward pass is still to come."""

    def _slot(self, parameter: Any) -> Tensor:
        copied = torch.empty_like(parameter, dtype=self.dtype, requires_grad=False)
        return copied.to(memory_format=torch.channels_last) if copied.ndim == 4 else copied

    def close(self) -> None:
        self.captured.clear()
        for parameter in self.turned:
            parameter.data = parameter.data.contiguous()

    def __call__(self, x: Tensor, t: Tensor, c: Tensor, further: Mapping[str, Tensor]) -> Tensor:
        """The prediction; maps are given to the watching processors."""
        watching = [layer.processor for layer in self.layers if isinstance(layer.processor, Watched)]
        adding = [(one.name, one.added) for one in watching if one.added is not None]
        inputs = [x, t, c, *further.values()]
        inputs += [added(f"{name}.{kind}.weight", c) for name, added in adding for kind in KINDS]
        trained = tuple(place for place, p in enumerate(self.parameters) if p.requires_grad)
        learning = torch.is_grad_enabled() and bool(trained or any(value.requires_grad for value in inputs))
        shapes = tuple((tuple(value.shape), value.requires_grad) for value in inputs)
        names = tuple(name for name, _ in adding)
        call = _Call(learning, trained if learning else (), names, len(watching), shapes, tuple(further))
        if learning:
            own = [self.parameters[place] for place in trained]
            prediction, *maps = _Pass.apply(self, call, *inputs, *own)
        else:
            prediction, *maps = self.forward(_State(), call, inputs)
        for processor, one in zip(watching, maps, strict=True):
            processor.watch(one)
        result: Tensor = prediction
        return result

    def forward(self, state: _State, call: _Call, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The pass, replayed if it can be; `state` gets what the backward pass needs."""
        alone = self.pending() is None  # else copies and graphs' memory belong to a pass that is still to go back
        values = self._filled() if alone else self._copied()
        if self.training.graphs and alone and call in self.captured:
            known = self.captured[call]
            if known is None:
                known = self.captured[call] = _Captured(self, call, inputs, values)
            if call.learning:
                state.captured, self.pending = known, ref(state)
            return known.forward(inputs)
        self.captured.setdefault(call, None)  # libraries choose algorithms and workspaces in a first pass
        outputs = state.computed(self, call, inputs, values)
        if call.learning and alone:
            self.pending = ref(state)
        return [value.detach() for value in outputs]

    def _filled(self) -> Sequence[Tensor]:
        """The copies, of the weights as they are now."""
        stale = []
        for place, (slot, p) in enumerate(zip(self.slots, self.parameters, strict=True)):
            # A fused optimiser changes weights without a new version, so trained ones are always copied.
            if slot.data_ptr() != p.data_ptr() and (p.requires_grad or self.versions[place] != p._version):
                stale.append(place)
                self.versions[place] = None if p.requires_grad else p._version
        if stale:
            with torch.no_grad():
                torch._foreach_copy_([self.slots[i] for i in stale], [self.parameters[i].detach() for i in stale])
        return self.slots

    def _copied(self) -> Sequence[Tensor]:
        """Further copies."""
        with torch.no_grad():
            return [p.detach().to(slot.dtype, copy=True) for slot, p in zip(self.slots, self.parameters, strict=True)]

    def compute(self, call: _Call, inputs: Sequence[Tensor], values: Sequence[Tensor]) -> list[Tensor]:
        """Prediction and maps, from these tensors in place of the parameters."""
        x, t, c, *more = inputs
        further = {name: more.pop(0) for name in call.further}
        added = {f"{name}.{kind}.weight": more.pop(0) for name in call.added for kind in KINDS}
        if self.way == KERNELS:
            from resurgence_harness.diffusion.half.training_forward import Forward

            given = {id(p): value for p, value in zip(self.parameters, values, strict=True)}
            return list(Forward(self.unet, lambda p: given[id(p)], self.dtype)(x, t, c, added, further))
        own = dict(zip((name for name, _ in self.unet.named_parameters()), values, strict=True))
        maps: list[Tensor] = []
        watched = [(layer, layer.processor) for layer in self.layers if isinstance(layer.processor, Watched)]
        for layer, one in watched:
            also = (lambda weight, _: added[weight]) if one.added is not None else None
            layer.processor = Watched(one.name, lambda found: maps.append(found.float()), also)
        half = self.dtype == torch.float16
        try:
            with torch.autocast(x.device.type, torch.float16, enabled=half, cache_enabled=False):
                states = {"encoder_hidden_states": c, "added_cond_kwargs": further or None, "return_dict": False}
                (prediction,) = torch.func.functional_call(self.unet, own, (x, t), states)
        finally:
            for layer, one in watched:
                layer.processor = one
        return [prediction.float(), *maps]


class _Call(NamedTuple):
    """What passes that one graph can compute have in common."""

    learning: bool
    """Whether a backward pass follows."""
    trained: tuple[int, ...]
    """Places of the trained parameters."""
    added: tuple[str, ...]
    """Names of the watching processors that add to keys and values."""
    watching: int
    inputs: tuple[tuple[tuple[int, ...], bool], ...]
    """Shape of each input, and whether it needs a gradient."""
    further: tuple[str, ...] = ()
    """Names of the added conditions."""


class _State:
    """What one forward pass leaves for its backward pass: its graph of operations, or the captured one."""

    captured: _Captured | None = None
    outputs: Sequence[Tensor] = ()
    leaves: Sequence[Tensor] = ()

    def computed(
        self, passes: _Passes, call: _Call, inputs: Sequence[Tensor], values: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """Compute the outputs; their leaves are the inputs that need a gradient, then the trained weights."""
        trained = set(call.trained)
        with torch.set_grad_enabled(call.learning):
            needs = [needed and call.learning for _, needed in call.inputs]
            given = [value.detach().requires_grad_(need) for value, need in zip(inputs, needs, strict=True)]
            own = [value.detach().requires_grad_(place in trained) for place, value in enumerate(values)]
            self.outputs = passes.compute(call, given, own)
            self.leaves = [value for value in (*given, *own) if value.requires_grad]
        return self.outputs

    def gradients(self, scaled: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """The leaves' gradients of s · L."""
        if self.captured is not None:
            return self.captured.backward(scaled)
        return torch.autograd.grad(self.outputs, self.leaves, scaled, allow_unused=True)


class _Pass(torch.autograd.Function):
    """The pass as an operation on the inputs and the trained weights."""

    @staticmethod
    def forward(ctx: Any, passes: _Passes, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.passes, ctx.state, ctx.count = passes, _State(), len(tensors)
        ctx.sought = [place for place, value in enumerate(tensors) if value.requires_grad]
        return tuple(passes.forward(ctx.state, call, tensors[: len(call.inputs)]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        state, ctx.state = ctx.state, None
        if state is None:
            raise RuntimeError("The gradients of a pass in float16 can be taken once.")
        norm = torch.stack(torch._foreach_norm(list(gradients))).norm()
        scale = torch.exp2((NORM / norm).log2().floor()).clamp(*RANGE)  # of NaN: NaN
        found = state.gradients(torch._foreach_mul(list(gradients), scale))
        whole = _unscaled(found, 1 / scale, ctx.passes.training.found)
        del state  # only now may another pass use the graphs' memory
        result: list[Tensor | None] = [None] * (2 + ctx.count)
        for place, gradient in zip(ctx.sought, whole, strict=True):
            result[2 + place] = gradient
        return tuple(result)


def _unscaled(gradients: Sequence[Tensor | None], inverse: Tensor, found: Tensor) -> list[Tensor | None]:
    """float32 gradients times 1/s, in one piece of memory; `found` becomes 1 if one is not finite."""
    kept = [gradient for gradient in gradients if gradient is not None]
    if not kept:
        return list(gradients)
    whole = torch.empty(sum(gradient.numel() for gradient in kept), device=kept[0].device)
    parts = [
        part.as_strided(gradient.shape, gradient.stride()) if _dense(gradient) else part.view(gradient.shape)
        for part, gradient in zip(whole.split([gradient.numel() for gradient in kept]), kept, strict=True)
    ]
    torch._foreach_copy_(parts, kept)
    torch._amp_foreach_non_finite_check_and_unscale_([whole], found, inverse)
    rest = iter(parts)
    return [None if gradient is None else next(rest) for gradient in gradients]


class _Captured:
    """A pass as two CUDA graphs, forward and backward, with the tensors that they read and write."""

    def __init__(self, passes: _Passes, call: _Call, inputs: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Capture it; all graphs of a U-Net share memory, which is why only one pass is between the two."""
        self.inputs = [value.detach().clone() for value in inputs]
        self.ahead, self.back, state = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph(), _State()
        passes.pool = passes.pool or torch.cuda.graph_pool_handle()
        with torch.cuda.graph(self.ahead, pool=passes.pool):
            self.outputs = state.computed(passes, call, self.inputs, values)
        self.scaled: Sequence[Tensor] = ()
        if call.learning:
            self.scaled = [torch.empty_like(value) for value in self.outputs]
            with torch.cuda.graph(self.back, pool=passes.pool):
                self.found = state.gradients(self.scaled)
        self.outputs = [value.detach() for value in self.outputs]

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs, copied: the next replay overwrites the graph's own."""
        with torch.no_grad():
            for slot, value in zip(self.inputs, inputs, strict=True):
                slot.copy_(value)
        self.ahead.replay()
        return [value.clone() for value in self.outputs]

    def backward(self, scaled: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """The leaves' gradients; valid until the next replay."""
        torch._foreach_copy_(list(self.scaled), list(scaled))
        self.back.replay()
        return self.found


def _kernels_run(device: torch.device) -> bool:
    """Whether Triton compiles for the device."""
    return device.type == "cuda" and has_triton() and torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY


def _fits(unet: Any) -> bool:
    from resurgence_harness.diffusion.half.training_forward import fits

    return fits(unet)


def _whole(unet: Any) -> set[int]:
    from resurgence_harness.diffusion.half.training_forward import kept_whole

    return kept_whole(unet)


def _last(weight: Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last)


def _dense(value: Tensor) -> bool:
    """Whether its memory has no gaps, so that a copy may have its strides."""
    return value.is_contiguous() or (value.ndim == 4 and _last(value))
