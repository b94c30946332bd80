"""A trained model in a run folder: written after training, read by what uses it."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bism_jax.samplers import AnnealingSchedule
from experiments.imaging.config import ImageConfig, from_json
from experiments.imaging.networks import WITH_LATENTS, make_energy, make_posterior
from experiments.run_folder import read_json

_WEIGHTS = "weights.npz"


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model with its parameters.

    Attributes:
        config: what it is.
        energy: the energy's module.
        posterior: the posterior's module, or None.
        theta: the moving average of the energy's parameters.
        phi: the posterior's parameters, or None.
    """

    config: ImageConfig
    energy: Any
    posterior: Any
    theta: Any
    phi: Any

    @property
    def schedule(self) -> AnnealingSchedule:
        """How to sample."""
        sampling = self.config.sampling
        return AnnealingSchedule(
            sampling.step_size,
            num_hot=sampling.hot_steps,
            num_cooling=sampling.cooling_steps,
            num_freezing=sampling.freezing_steps,
        )

    @property
    def has_latents(self) -> bool:
        """Whether the energy takes a latent."""
        return self.config.training.name in WITH_LATENTS

    def marginal_energy(self, v: Any) -> Any:
        """The energy of images, of a model without latents."""
        return self.energy.apply(self.theta, v)

    def latent_mean(self, v: Any, batch_size: int = 500) -> np.ndarray:
        """The posterior's mean of each image; of a flow, its sample at zero noise.

        Raises:
            ValueError: for a model without a posterior.
        """
        if self.posterior is None:
            raise ValueError("this model has no posterior: it was trained by mdsm, without latents.")
        blocks = [v[start : start + batch_size] for start in range(0, len(v), batch_size)]
        return np.concatenate([np.asarray(_latent_mean(self.posterior, self.phi, block)) for block in blocks])


def build(config: ImageConfig, theta: Any, phi: Any) -> TrainedModel:
    """A model from its parameters."""
    return TrainedModel(config, make_energy(config), make_posterior(config), theta, phi)


def write_weights(path: Path, theta: Any, phi: Any) -> None:
    """Writes the parameters into a run folder, one array a leaf, named by its path.

    Of BiDVL's encoder and decoder, the encoder is the posterior; its checkpoints hold both.
    """
    phi = getattr(phi, "encoder", phi)
    arrays = {name: np.asarray(leaf) for name, leaf in _named({"theta": theta, "phi": phi})}
    np.savez(path / _WEIGHTS, allow_pickle=False, **arrays)


def read_trained(path: Path) -> TrainedModel:
    """The model of a run folder.

    Raises:
        FileNotFoundError: where it is no run folder, or training has not finished.
        ValueError: where its weights are those of other networks.
    """
    for name, meaning in (("config.json", "a run folder"), (_WEIGHTS, "the folder of a finished run")):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} has no {name}, so it is not {meaning} of experiments.images.")
    config = from_json(read_json(path / "config.json"))
    arrays = _read_weights(path / _WEIGHTS)
    template = _template(config)
    expected = {name: leaf.shape for name, leaf in _named(template)}
    found = {name: array.shape for name, array in arrays.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{path / _WEIGHTS}: {name!r} has shape {found.get(name)}, but the networks of config.json "
                f"have {expected.get(name)}; the weights are those of another model."
            )
    leaves = [jnp.asarray(arrays[name]) for name, _ in _named(template)]
    params = jax.tree.unflatten(jax.tree.structure(template), leaves)
    return build(config, params["theta"], params["phi"])


def _read_weights(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f"{path} cannot be read as an npz archive ({error}): it was cut off. Train again, or take a copy."
        ) from None


def latent_location(posterior: Any, phi: Any, v: Any) -> Any:
    """The mean of q(h | v), or, of a flow, which has none in closed form, its sample at zero noise."""
    q = posterior.apply(phi, v)
    try:
        return q.mean
    except NotImplementedError:
        return q.transform(jnp.zeros_like(q.draw_noise(jax.random.key(0))))[0]


def _template(config: ImageConfig) -> dict[str, Any]:
    """Shapes of the parameters."""
    energy, posterior, key = make_energy(config), make_posterior(config), jax.random.key(0)
    v = jnp.zeros((1, *config.image_shape))
    h = jnp.zeros((1, config.network.num_hidden))
    theta = jax.eval_shape(energy.init, key, v, *([h] if config.training.name in WITH_LATENTS else []))
    phi = None if posterior is None else jax.eval_shape(posterior.init, key, v)
    return {"theta": theta, "phi": phi}


def _named(tree: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


_latent_mean = jax.jit(latent_location, static_argnums=0)
