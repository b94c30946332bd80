"""Samples of a trained model, and pictures of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bism_jax import plotting
from bism_jax.samplers import (
    AnnealedSamples,
    annealed_langevin,
    initial_noise,
    inpaint,
    interpolate,
    sample_joint,
    sample_visible,
)
from experiments.imaging.trained import TrainedModel

_NUM_SNAPSHOTS = 10
_NUM_COLUMNS = 10


def draw_samples(model: TrainedModel, key: Any, num_chains: int) -> AnnealedSamples:
    """Samples of v from noise, and how they came; of (v, h) for a model with latents, whose h is dropped."""
    num_snapshots = min(_NUM_SNAPSHOTS, model.schedule.num_steps)
    v_key, h_key, chain_key = jax.random.split(key, 3)
    v = initial_noise(v_key, (num_chains, *model.config.image_shape), jnp.float32)
    if not model.has_latents:
        energy_fn = model.marginal_energy
        return annealed_langevin(energy_fn, chain_key, v, model.schedule, num_snapshots=num_snapshots)
    h = initial_noise(h_key, (num_chains, model.config.network.num_hidden), jnp.float32)
    samples = sample_joint(
        model.energy.apply, model.theta, chain_key, v, h, model.schedule, num_snapshots=num_snapshots
    )
    return AnnealedSamples(samples.x[0], samples.snapshots[0])


def draw_given_latent(model: TrainedModel, key: Any, h: Any) -> np.ndarray:
    """Samples of v for each latent, from noise: 'via q' where h is the posterior's mean of an image."""
    start_key, chain_key = jax.random.split(key)
    v = initial_noise(start_key, (len(h), *model.config.image_shape), jnp.float32)
    return clip(sample_visible(model.energy.apply, model.theta, chain_key, v, h, model.schedule).x)


def draw_all(model: TrainedModel, images: np.ndarray, path: Path, *, num_chains: int = 100) -> None:
    """Every picture of a model: samples and their film, and, with latents, what the latents are good for."""
    samples = draw_samples(model, jax.random.key(0), num_chains)
    save_samples(clip(samples.x), path / "samples.png")
    film = clip(samples.snapshots[:, :_NUM_COLUMNS])
    plotting.save(plotting.plot_film_strip(film), path / "film_strip.png")
    frames = [plotting.image_mosaic(frame, columns=5) for frame in film]
    plotting.save_animation(frames, path / "film.gif")
    if model.has_latents:
        _draw_given_latents(model, images, path)
        _draw_inpainting(model, images, path / "inpainting.png")


def _draw_given_latents(model: TrainedModel, images: np.ndarray, path: Path) -> None:
    """Reconstructions, variations and interpolations, as one batch of chains."""
    h = model.latent_mean(images)
    half = len(h) // 2
    between = interpolate(jnp.asarray(h[:half]), jnp.asarray(h[half:][:half]), _NUM_COLUMNS)
    varied = np.repeat(h[:half], _NUM_COLUMNS - 1, axis=0)
    latents = np.concatenate([h, varied, np.asarray(between).reshape(-1, h.shape[-1])])
    drawn = draw_given_latent(model, jax.random.key(1), jnp.asarray(latents))
    reconstructed, variations, interpolated = np.split(drawn, [len(h), len(h) + len(varied)])
    save_reconstructions(images, reconstructed, path / "reconstructions.png")
    variations = variations.reshape(half, _NUM_COLUMNS - 1, *images.shape[1:])
    rows = np.concatenate([images[:half, None], variations], axis=1).reshape(-1, *images.shape[1:])
    title = f"An image, and {_NUM_COLUMNS - 1} samples given its latent"
    plotting.save(plotting.plot_image_grid(rows, _NUM_COLUMNS, title), path / "variations.png")
    title = "Samples given latents between two images'"
    plotting.save(plotting.plot_image_grid(interpolated, _NUM_COLUMNS, title), path / "interpolations.png")


def save_reconstructions(images: np.ndarray, drawn: np.ndarray, path: Path) -> None:
    """Images over samples given their latents."""
    plotting.save(plotting.plot_reconstructions(images, drawn, title="v given the mean of q(h | v)"), path)


def save_samples(images: np.ndarray, path: Path) -> None:
    """A grid of samples."""
    plotting.save(plotting.plot_image_grid(images, _NUM_COLUMNS), path)


def clip(images: Any) -> np.ndarray:
    """Samples within [0, 1], which a model of densities leaves by a little."""
    return np.clip(np.asarray(images, np.float32), 0, 1)


def _draw_inpainting(model: TrainedModel, images: np.ndarray, path: Path) -> None:
    observed = np.ones(images.shape, bool)
    observed[:, :, images.shape[2] // 2 :] = False
    h = initial_noise(jax.random.key(4), (len(images), model.config.network.num_hidden), jnp.float32)
    v, known = jnp.asarray(images), jnp.asarray(observed)
    completed = inpaint(model.energy.apply, model.theta, jax.random.key(5), v, known, h, model.schedule).x[0]
    plotting.save(plotting.plot_inpainting(images, observed, clip(completed)), path)
