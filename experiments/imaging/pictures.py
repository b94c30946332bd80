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


def draw_samples(model: TrainedModel, key: Any, num_chains: int, num_snapshots: int = 0) -> AnnealedSamples:
    """Samples of v from noise; of (v, h) jointly for a model with latents, whose h is dropped."""
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
    num_snapshots = min(10, model.schedule.num_steps)
    samples = draw_samples(model, jax.random.key(0), num_chains, num_snapshots)
    save_samples(clip(samples.x), path / "samples.png")
    film = clip(samples.snapshots[:, :10])
    plotting.save(plotting.plot_film_strip(film), path / "film_strip.png")
    frames = [plotting.image_mosaic(frame, columns=5) for frame in film]
    plotting.save_animation(frames, path / "film.gif")
    if not model.has_latents:
        return
    draw_reconstructions(model, images[:10], path / "reconstructions.png")
    _draw_variations(model, images[:5], path / "variations.png")
    _draw_interpolations(model, images[:10], path / "interpolations.png")
    _draw_inpainting(model, images[:10], path / "inpainting.png")


def draw_reconstructions(model: TrainedModel, images: np.ndarray, path: Path) -> None:
    """Images over samples given the posterior's mean of their latents."""
    drawn = draw_given_latent(model, jax.random.key(1), jnp.asarray(model.latent_mean(images)))
    plotting.save(plotting.plot_reconstructions(images, drawn, title="v given the mean of q(h | v)"), path)


def save_samples(images: np.ndarray, path: Path) -> None:
    """A grid of samples."""
    plotting.save(plotting.plot_image_grid(images, columns=10), path)


def clip(images: Any) -> np.ndarray:
    """Samples within [0, 1], which a model of densities leaves by a little."""
    return np.clip(np.asarray(images, np.float32), 0, 1)


def _draw_variations(model: TrainedModel, images: np.ndarray, path: Path) -> None:
    h = jnp.repeat(jnp.asarray(model.latent_mean(images)), 9, axis=0)
    drawn = draw_given_latent(model, jax.random.key(2), h).reshape(len(images), 9, *images.shape[1:])
    rows = np.concatenate([images[:, None], drawn], axis=1).reshape(-1, *images.shape[1:])
    plotting.save(plotting.plot_image_grid(rows, 10, "An image, and nine samples given its latent"), path)


def _draw_interpolations(model: TrainedModel, images: np.ndarray, path: Path) -> None:
    h = jnp.asarray(model.latent_mean(images))
    between = interpolate(h[: len(h) // 2], h[len(h) // 2 :][: len(h) // 2], 10)
    drawn = draw_given_latent(model, jax.random.key(3), between.reshape(-1, between.shape[-1]))
    plotting.save(plotting.plot_image_grid(drawn, 10, "Samples given latents between two images'"), path)


def _draw_inpainting(model: TrainedModel, images: np.ndarray, path: Path) -> None:
    observed = np.ones(images.shape, bool)
    observed[:, :, images.shape[2] // 2 :] = False
    h = initial_noise(jax.random.key(4), (len(images), model.config.network.num_hidden), jnp.float32)
    v, known = jnp.asarray(images), jnp.asarray(observed)
    completed = inpaint(model.energy.apply, model.theta, jax.random.key(5), v, known, h, model.schedule).x[0]
    plotting.save(plotting.plot_inpainting(images, observed, clip(completed)), path)
