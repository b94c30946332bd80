"""What a run on images is: data, networks, method and length, with presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bism_jax import checks

Data = Literal["mnist", "fashion_mnist", "cifar10", "celeba"]
Preset = Literal["smoke", "small", "paper"]
MIRRORED = ("celeba",)  # as in the paper's code
_GREY = ("mnist", "fashion_mnist")
_PLACE = {"parallel", "data_dir", "output", "progress"}


@dataclass(frozen=True)
class NetworkConfig:
    """The energy and the posterior.

    Attributes:
        energy: paper (a residual network with ELU, as published), smooth (with SiLU), or reconstruction (the
            error of a U-Net, which learns in fewer iterations).
        posterior: gaussian (convolutions) or flow (a coupling flow on top of them).
        num_hidden: latents.
        channels: of the energy's first convolution.
        num_blocks: of a residual network, 6 or 9.
        widths: channels of the posterior's convolutions.
        spectral_norm: divide the energy's convolutions by their spectral norm.
        bfloat16: convolve in bfloat16.
    """

    energy: Literal["paper", "smooth", "reconstruction"] = "paper"
    posterior: Literal["gaussian", "flow"] = "gaussian"
    num_hidden: int = 50
    channels: int = 64
    num_blocks: int = 6
    widths: tuple[int, ...] = (64, 128, 256)
    spectral_norm: bool = False
    bfloat16: bool = False

    def __post_init__(self) -> None:
        checks.one_of("energy", self.energy, ("paper", "smooth", "reconstruction"))
        checks.one_of("posterior", self.posterior, ("gaussian", "flow"))
        checks.positive_int("num_hidden", self.num_hidden)
        checks.positive_int("channels", self.channels)
        checks.one_of("num_blocks", self.num_blocks, (6, 9))
        checks.widths("widths", self.widths)


@dataclass(frozen=True)
class TrainingConfig:
    """The method and its noise.

    Attributes:
        name: bimdsm (bi-level), vages, mdsm (an energy without latents) or bidvl.
        num_steps: N, the differentiated lower-level steps.
        lower_steps: K, the lower-level steps before them.
        keep_unrolled: keep phi^N instead of throwing the N steps away.
        noise: the higher level's noise for all lower-level steps, or fresh noise at each.
        divergence: of the lower level.
        num_particles: latents a data point; at least 2 for vages.
        min_std: the smallest noise level, in units of the data's range [0, 1].
        max_std: the largest.
        spacing: of the levels.
        learning_rate: of both levels' Adam at the start of its cosine schedule.
        max_grad_norm: the norm to which the gradients of both levels are clipped, or None.
    """

    name: Literal["bimdsm", "vages", "mdsm", "bidvl"] = "bimdsm"
    num_steps: int = 5
    lower_steps: int = 5
    keep_unrolled: bool = False
    noise: Literal["shared", "fresh"] = "shared"
    divergence: Literal["fisher", "kl"] = "fisher"
    num_particles: int = 1
    min_std: float = 0.1
    max_std: float = 3.0
    spacing: Literal["geometric", "linear"] = "geometric"
    learning_rate: float = 1e-4
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        checks.one_of("name", self.name, ("bimdsm", "vages", "mdsm", "bidvl"))
        checks.non_negative_int("num_steps", self.num_steps)
        checks.non_negative_int("lower_steps", self.lower_steps)
        checks.one_of("noise", self.noise, ("shared", "fresh"))
        checks.one_of("divergence", self.divergence, ("fisher", "kl"))
        checks.positive_int("num_particles", self.num_particles)
        for name in ("min_std", "max_std", "learning_rate"):
            checks.positive(name, getattr(self, name))
        checks.one_of("spacing", self.spacing, ("geometric", "linear"))
        if self.max_grad_norm is not None:
            checks.positive("max_grad_norm", self.max_grad_norm)


@dataclass(frozen=True)
class SamplingConfig:
    """Annealed Langevin sampling; the defaults are the paper's.

    Attributes:
        step_size: sigma.
        hot_steps: steps at the highest temperature, 100.
        cooling_steps: steps from there to 1.
        freezing_steps: steps from 1 to 0.
    """

    step_size: float = 0.02
    hot_steps: int = 500
    cooling_steps: int = 2_000
    freezing_steps: int = 200

    def __post_init__(self) -> None:
        checks.positive("step_size", self.step_size)
        for name in ("hot_steps", "cooling_steps", "freezing_steps"):
            checks.non_negative_int(name, getattr(self, name))


@dataclass(frozen=True)
class ImageConfig:
    """A run on images, in full.

    Attributes:
        data: the data set.
        preset: what the rest started from.
        network: the networks.
        training: the method.
        sampling: how pictures are drawn.
        iterations: of training.
        batch_size: images of a minibatch.
        num_images: training images that are used; None for all.
        ema_decay: of the moving average of the energy's parameters.
        checkpoint_every: iterations between checkpoints.
        picture_every: iterations between grids of samples.
        seed: of parameters, noise and data order.
        parallel: how to use several devices.
        data_dir: the data directory; the environment's BISM_JAX_DATA where it is not given.
        output: the run folder; the same folder and options continue a run.
        progress: show a bar even where there is no terminal.
    """

    data: Data
    preset: Preset
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    iterations: int = 100_000
    batch_size: int = 100
    num_images: int | None = None
    ema_decay: float = 0.999
    checkpoint_every: int = 5_000
    picture_every: int = 20_000
    seed: int = 0
    parallel: Literal["jit", "pmap"] | None = None
    data_dir: Path | None = None
    output: Path | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        checks.one_of("data", self.data, (*_GREY, "cifar10", "celeba"))
        for name in ("iterations", "batch_size", "checkpoint_every", "picture_every"):
            checks.positive_int(name, getattr(self, name))
        if self.num_images is not None:
            checks.positive_int("num_images", self.num_images)
        checks.fraction("ema_decay", self.ema_decay)
        checks.seed("seed", self.seed)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and colours."""
        return (32, 32, 1 if self.data in _GREY else 3)


def preset(data: Data, name: Preset) -> ImageConfig:
    """The settings of a data set: the paper's, some that a laptop trains in an hour, or a short trial."""
    paper = ImageConfig(data, name) if data in _GREY else _coloured(ImageConfig(data, name))
    return {"paper": lambda config: config, "small": _small, "smoke": _smoke}[name](paper)


def from_json(values: dict[str, Any]) -> ImageConfig:
    """The configuration that `RunFolder` wrote, without where it was run.

    Raises:
        ValueError: where it is that of another experiment.
    """
    names = {entry.name for entry in dataclasses.fields(ImageConfig)} - _PLACE
    if values.get("experiment") != "images" or not names <= values.keys():
        raise ValueError("config.json is not that of a run of experiments.images.")
    config = {name: values[name] for name in names}
    parts = {"network": NetworkConfig, "training": TrainingConfig, "sampling": SamplingConfig}
    for name, make in parts.items():
        expected = {entry.name for entry in dataclasses.fields(make)}
        if not isinstance(config[name], dict) or config[name].keys() != expected:
            raise ValueError(f"config.json: {name} must have the entries {sorted(expected)}; it was edited.")
        config[name] = make(**{key: _untupled(value) for key, value in config[name].items()})
    return ImageConfig(**config)


def _untupled(value: Any) -> Any:
    """JSON has no tuples."""
    return tuple(value) if isinstance(value, list) else value


def _coloured(config: ImageConfig) -> ImageConfig:
    return dataclasses.replace(
        config,
        network=dataclasses.replace(config.network, channels=128, num_blocks=9),
        training=dataclasses.replace(
            config.training, min_std=0.05, max_std=1.2, spacing="linear", learning_rate=5e-5
        ),
        iterations=300_000,
    )


def _small(config: ImageConfig) -> ImageConfig:
    return dataclasses.replace(
        config,
        network=dataclasses.replace(
            config.network, energy="reconstruction", channels=16, widths=(16, 32, 64)
        ),
        training=dataclasses.replace(config.training, num_steps=0, learning_rate=1e-3),
        sampling=SamplingConfig(0.08, 10, 60, 10),
        iterations=5_000,
        batch_size=50,
        checkpoint_every=500,
        picture_every=1_000,
    )


def _smoke(config: ImageConfig) -> ImageConfig:
    small = _small(config)
    return dataclasses.replace(
        small,
        network=dataclasses.replace(small.network, channels=4, num_hidden=20, widths=(8, 16, 32)),
        training=dataclasses.replace(small.training, num_steps=1, lower_steps=0, keep_unrolled=True),
        sampling=SamplingConfig(0.1, 5, 20, 5),
        iterations=30,
        batch_size=20,
        num_images=2_000,
        ema_decay=0.9,
        checkpoint_every=15,
        picture_every=15,
    )
