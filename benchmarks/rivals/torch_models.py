"""The models in PyTorch, with the parameters of the Flax ones."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_TEMPERATURE = 0.1


class GRBM(nn.Module):
    """E(v, h) of the Gaussian restricted Boltzmann machine."""

    def __init__(self, tree: Any) -> None:
        super().__init__()
        for name, leaf in tree["params"].items():
            self.register_parameter(name, nn.Parameter(_tensor(leaf)))

    def forward(self, v: Tensor, h: Tensor) -> Tensor:
        """`[B]`."""
        quadratic = 0.5 * ((v - self.b) ** 2 * torch.exp(-2 * self.log_std)).sum(-1)
        return quadratic - h @ self.c - ((v @ self.W) * h).sum(-1)


class BernoulliPosterior(nn.Module):
    """Relaxed binary latents with linear logits."""

    def __init__(self, tree: Any) -> None:
        super().__init__()
        (layer,) = jax.tree.leaves(tree["params"], is_leaf=lambda node: "kernel" in node)
        self.linear = _linear(layer)

    def forward(self, v: Tensor) -> Tensor:
        """The logits."""
        return self.linear(v)

    @staticmethod
    def draw(logits: Tensor, noise: Tensor) -> Tensor:
        """H."""
        return torch.sigmoid((logits + noise) / _TEMPERATURE)

    @staticmethod
    def log_prob(logits: Tensor, h: Tensor) -> Tensor:
        """`[B]`."""
        return (h * logits - functional.softplus(logits)).sum(-1)


class ResidualEnergy(nn.Module):
    """E(v, h) of the paper's residual network."""

    def __init__(self, tree: Any) -> None:
        super().__init__()
        trunk = tree["params"]["trunk"]
        self.first = _conv(trunk["Conv_0"])
        number = sum(name.startswith("ResidualBlock") for name in trunk)
        self.blocks = nn.ModuleList(
            _Block(trunk[f"ResidualBlock_{index}"], halves=index % (number // 3) == 0)
            for index in range(number)
        )
        self.last, self.joint = _linear(trunk["Dense_0"]), _linear(tree["params"]["joint"])

    def forward(self, v: Tensor, h: Tensor) -> Tensor:
        """`[B]`."""
        x = self.first(v.permute(0, 3, 1, 2))
        for block in self.blocks:
            x = block(x)
        features = self.last(x.permute(0, 2, 3, 1).flatten(1))
        return (functional.elu(self.joint(torch.cat([features + h, h], -1))) ** 2).sum(-1)


class _Block(nn.Module):
    def __init__(self, tree: Any, halves: bool) -> None:
        super().__init__()
        self.inner, self.outer, self.shortcut = (_conv(tree[f"Conv_{index}"]) for index in range(3))
        self.halves = halves

    def forward(self, x: Tensor) -> Tensor:
        residual = self.outer(functional.elu(self.inner(functional.elu(x))))
        if self.halves:
            residual, x = functional.avg_pool2d(residual, 2), functional.avg_pool2d(x, 2)
        return residual + self.shortcut(x)


class ConvGaussianPosterior(nn.Module):
    """A diagonal Gaussian by convolutions of stride 2."""

    def __init__(self, tree: Any) -> None:
        super().__init__()
        encoder = tree["params"]["ConvEncoder_0"]
        self.convs = nn.ModuleList(_conv(encoder[name], stride=2) for name in sorted(encoder))
        self.mean, self.log_std = (_linear(tree["params"][name]) for name in ("mean", "log_std"))

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the log standard deviation."""
        x = v.permute(0, 3, 1, 2)
        for conv in self.convs:
            x = functional.leaky_relu(conv(x), 0.2)
        x = x.permute(0, 2, 3, 1).flatten(1)
        return self.mean(x), self.log_std(x)

    @staticmethod
    def draw(moments: tuple[Tensor, Tensor], noise: Tensor) -> Tensor:
        """H."""
        return moments[0] + torch.exp(moments[1]) * noise

    @staticmethod
    def log_prob(moments: tuple[Tensor, Tensor], h: Tensor) -> Tensor:
        """`[B]`, without the constant."""
        mean, log_std = moments
        return (-0.5 * ((h - mean) * torch.exp(-log_std)) ** 2 - log_std).sum(-1)


def energy_gradients(energy: nn.Module, grads: dict[str, Tensor]) -> np.ndarray:
    """Gradients by parameter name as one vector in Flax's order and layout."""
    if isinstance(energy, GRBM):
        return np.concatenate([grads[name].numpy().ravel() for name in ("W", "b", "c", "log_std")])
    parts = [*_of_layer(grads, "joint"), *_of_layer(grads, "first"), *_of_layer(grads, "last")]
    for index in range(len(energy.blocks)):
        for name in ("inner", "outer", "shortcut"):
            parts += _of_layer(grads, f"blocks.{index}.{name}")
    return np.concatenate(parts)


def _of_layer(grads: dict[str, Tensor], name: str) -> list[np.ndarray]:
    kernel = grads[f"{name}.weight"].numpy()
    kernel = kernel.T if kernel.ndim == 2 else kernel.transpose(2, 3, 1, 0)
    bias = [grads[f"{name}.bias"].numpy().ravel()] if f"{name}.bias" in grads else []
    return [*bias, kernel.ravel()]


def _conv(layer: Any, stride: int = 1) -> nn.Conv2d:
    size, _, inputs, outputs = layer["kernel"].shape
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias="bias" in layer)
    conv.weight = nn.Parameter(_tensor(layer["kernel"]).permute(3, 2, 0, 1).contiguous())
    if "bias" in layer:
        conv.bias = nn.Parameter(_tensor(layer["bias"]))
    return conv


def _linear(layer: Any) -> nn.Linear:
    linear = nn.Linear(*layer["kernel"].shape)
    linear.weight = nn.Parameter(_tensor(layer["kernel"]).T.contiguous())
    linear.bias = nn.Parameter(_tensor(layer["bias"]))
    return linear


def _tensor(leaf: Any) -> Tensor:
    return torch.from_numpy(np.array(leaf))
