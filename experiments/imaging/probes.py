"""What latents and energies tell: linear probes, and scores of out-of-distribution images."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from bism_jax.data import LabelledImages, load_image_split
from bism_jax.evaluation import auroc, latent_probe, ood_scores
from experiments.imaging.trained import TrainedModel, latent_location

_OTHER_DATA = {
    "mnist": ("fashion_mnist",),
    "fashion_mnist": ("mnist",),
    "cifar10": ("mnist", "fashion_mnist"),
    "celeba": ("cifar10",),
}
_SCORES = ("energy", "bound", "score_norm")
_NUM_PARTICLES = 4


def probe_accuracies(model: TrainedModel, train: LabelledImages, test: LabelledImages) -> dict[str, float]:
    """Test accuracy of a linear classifier on the latents' means, and on as many principal components."""
    parts: Any = (train.images, train.labels, test.images, test.labels)
    mean, components = _principal_components(train.images, model.config.network.num_hidden)
    latents = latent_probe(lambda phi, v: _point(latent_location(model.posterior, phi, v)), model.phi, *parts)
    principal = latent_probe(
        lambda phi, v: _point((jnp.reshape(v, (len(v), -1)) - mean) @ components), None, *parts
    )
    number = model.config.network.num_hidden
    return {
        f"probe accuracy on {number} latents": latents.test_accuracy,
        f"probe accuracy on {number} principal components": principal.test_accuracy,
    }


def out_of_distribution(model: TrainedModel, images: np.ndarray, data_dir: Any) -> dict[str, float]:
    """AUROC of the test images against those of other sets, by each score."""
    results = {}
    for name in _OTHER_DATA[model.config.data]:
        other = _with_channels(load_image_split(name, "test", data_dir).images, images.shape[-1])
        for score in _SCORES if model.has_latents else ("energy",):
            inside, outside = _scores(model, images, score), _scores(model, other[: len(images)], score)
            results[f"AUROC against {name}, {score}"] = auroc(inside, outside)
    return results


def _scores(model: TrainedModel, images: np.ndarray, score: Any) -> np.ndarray:
    if not model.has_latents:
        energies = jax.jit(model.marginal_energy)
        return -np.concatenate(
            [np.asarray(energies(block)) for block in np.array_split(images, len(images) // 100)]
        )
    if score == "energy" and model.config.network.posterior == "flow":
        score = "bound"  # a flow has no mean
    return ood_scores(
        model.energy,
        model.posterior,
        model.theta,
        model.phi,
        images,
        jax.random.key(0),
        score=score,
        num_particles=1 if score == "energy" else _NUM_PARTICLES,
    )


def _with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    return images if images.shape[-1] == channels else np.repeat(images, channels, axis=-1)


def _principal_components(images: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    rows = images.reshape(len(images), -1).astype(np.float64)
    mean = rows.mean(axis=0)
    _, vectors = np.linalg.eigh((rows - mean).T @ (rows - mean))
    return mean.astype(np.float32), vectors[:, -number:].astype(np.float32)


def _point(location: Any) -> Any:
    """Something with that mean, as `latent_probe` asks for."""
    return dist.Normal(location, 1.0).to_event(1)
