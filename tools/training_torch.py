"""The training step in PyTorch, for tools/bench_train.py: what most people would write, in its fastest form found.

It computes what gateway/training_graph.py computes, halo masks, integers and all, from the same arrays. Layouts were
tried: channels first and one matrix product over the taps took 20 ms of processor time a step, a batched product per
cycle 28, and a plain conv2d, which knows no own values at the border, 14. It imports nothing that needs onnxruntime.
"""

import importlib
from typing import Any

from numpy.typing import NDArray

from gateway.model import CONV3X3, ModelSpec
from gateway.quantise import BIAS_ONE, WEIGHT_ONE
from protocol.fixed import ACTIVATION_MAX
from protocol.grid import BLOCK_SIDE, CENTRE, TAPS

Arrays = dict[str, NDArray[Any]]


class TorchEngine:
    """A network in training, for specs without an appended maximum."""

    def __init__(self, spec: ModelSpec, parameters: Arrays, constants: Arrays):
        """Arrays under the names of the graph; one thread from now on, in the whole process.

        Raises:
            ImportError: PyTorch is not installed.
        """
        self._torch = torch = importlib.import_module("torch")
        torch.set_num_threads(1)
        self._spec = spec
        self._parameters = {name: torch.nn.Parameter(torch.tensor(x)) for name, x in parameters.items()}
        self._constants = {name: torch.tensor(x) for name, x in constants.items()}
        filters = [x for name, x in self._parameters.items() if name.startswith("filters")]
        dense = [x for name, x in self._parameters.items() if not name.startswith("filters")]
        self._optimiser = torch.optim.Adam([{"params": filters}, {"params": dense}])
        self._straight = _straight_through(torch)

    def step(self, batch: Arrays, rate: float, filter_rate: float) -> float:
        """Learn from one batch; the loss before that."""
        torch = self._torch
        for group, size in zip(self._optimiser.param_groups, (filter_rate, rate), strict=True):
            group["lr"] = size
        self._optimiser.zero_grad()
        targets = torch.from_numpy(batch["targets"])
        loss = torch.nn.functional.cross_entropy(self._logits(self._features(batch)), targets)
        loss.backward()
        self._optimiser.step()
        return float(loss.detach())

    def _features(self, batch: Arrays) -> Any:
        torch = self._torch
        value, halos = torch.from_numpy(batch["readings"])[None], iter(torch.from_numpy(batch["heard"]))
        for index, shape in enumerate(self._spec.layers):
            taps = self._taps(value, next(halos)) if shape.kind == CONV3X3 else value.flatten(1)
            value = self._units(index, taps).view(-1, *value.shape[1:])
        value = value * torch.from_numpy(batch["pooled"])
        return torch.nn.functional.max_pool2d(value, BLOCK_SIDE, ceil_mode=True).permute(1, 2, 3, 0).flatten(1)

    def _taps(self, value: Any, heard: Any) -> Any:
        """What the units read: [in, n, rows, cols] -> [in * 9, n * rows * cols], own values in the gaps."""
        rows, cols = value.shape[-2:]
        padded = self._torch.nn.functional.pad(value, (1, 1, 1, 1))
        taps = []
        for tap in range(TAPS):
            down, right = divmod(tap, 3)
            seen = padded[:, :, down : down + rows, right : right + cols]
            mask = heard[tap - (tap > CENTRE)]
            taps.append(value if tap == CENTRE else self._torch.where(mask, seen, value))
        return self._torch.stack(taps, 1).flatten(0, 1).flatten(1)

    def _units(self, index: int, taps: Any) -> Any:
        step = self._constants[f"filters{index}.step"]
        weights = self._straight(self._torch.round, self._parameters[f"filters{index}.weights"] * WEIGHT_ONE)
        bias = self._straight(self._torch.round, self._parameters[f"filters{index}.bias"] * BIAS_ONE * step)
        total = weights.clamp(-WEIGHT_ONE, WEIGHT_ONE - 1).flatten(1) @ taps + (bias + step / 2)[:, None]
        return self._straight(self._torch.floor, total / step).clamp(0, ACTIVATION_MAX)

    def _logits(self, features: Any) -> Any:
        value = (features / ACTIVATION_MAX - self._constants["centre"]) / self._constants["scale"]
        last = len(self._spec.hidden)
        for index in range(last + 1):
            value = value @ self._parameters[f"dense{index}.weights"] + self._parameters[f"dense{index}.bias"]
            value = value.relu() if index < last else value
        return value


def _straight_through(torch: Any) -> Any:
    """A rounding whose gradient is that of no rounding."""

    def forward(ctx: Any, rounding: Any, value: Any) -> Any:
        return rounding(value)

    def backward(ctx: Any, gradient: Any) -> Any:
        return None, gradient

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type("StraightThrough", (torch.autograd.Function,), methods)
    return function.apply
