"""Malformed calls of `bism_jax.evaluation`."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from flax import nnx
from jaxtyping import Array

from benchmarks.malformed.campaign import Call
from benchmarks.malformed.values import scratch_folder
from bism_jax import DSM, KL, evaluation
from bism_jax.models import (
    GRBM,
    BernoulliPosterior,
    ImageClassifier,
    MLPCritic,
    MLPEnergy,
    image_features,
)

PACKAGE = "bism_jax.evaluation"
_RESULTS = (
    "AnnealedImportance ClassCoverage CriticFisher GradientBias KernelDistance LatentProbe PosteriorGap "
    "PrecisionRecall"
)
EXEMPT = {
    **dict.fromkeys(_RESULTS.split(), "a result"),
    "FeatureFn": "a protocol",
    "FeatureStatistics": "a result; its methods have entries of their own",
}
KEY = jax.random.key(0)
_ROWS = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
_IMAGES = np.random.default_rng(0).uniform(size=(12, 8, 8, 1)).astype(np.float32)


class NNXEnergy(nnx.Module):
    """A free energy with parameters whose shapes nothing checks when it is called."""

    def __init__(self) -> None:
        self.weight = nnx.Param(jnp.ones((2,)))

    def free_energy(self, v: Array) -> Array:
        """Quadratic, `[B]`."""
        return (self.weight[...] * v**2).sum(axis=-1)

    def __call__(self, v: Array, h: Array) -> Array:
        """Likewise, with h."""
        return self.free_energy(v) + (h**2).sum(axis=-1)


def free_energy(theta: Any, v: Array) -> Array:
    """As a plain function of its parameters."""
    return (v**2 @ theta["w"]).sum(axis=-1)


def log_prob(v: Array) -> Array:
    """Of standard normal data."""
    return -0.5 * (v**2).sum(axis=-1)


def _broken(*args: Any) -> Any:
    raise KeyError("a fault of the function's own")


@functools.lru_cache
def models() -> dict[str, Any]:
    """A model, a posterior and their parameters."""
    energy, posterior = GRBM(2), BernoulliPosterior(2)
    v, h = jnp.asarray(_ROWS), jnp.zeros((len(_ROWS), 2))
    theta, phi = jax.jit(energy.init)(KEY, v, h), jax.jit(posterior.init)(KEY, v)
    return {"energy_fn": energy, "posterior_fn": posterior, "theta": theta, "phi": phi, "v": v}


@functools.lru_cache
def classifier() -> Any:
    """With random weights."""
    network = ImageClassifier(3)
    return image_features("ImageClassifier", network, jax.jit(network.init)(KEY, _IMAGES[:1]))


def calls() -> dict[str, Call]:
    """One valid call for each public name."""
    return {**_of_models(), **_of_kinds_of_models(), **_of_features(), **_of_images(), **_of_statistics()}


def _of_models() -> dict[str, Call]:
    both = models()
    marginal = {name: both[name] for name in ("energy_fn", "theta", "v")}
    lengths = {"energy_fn": "model", "posterior_fn": "model", "theta": "theta", "phi": "phi", "v": "rows"}
    kinds = {name: lengths[name] for name in marginal}
    no_free_energy = {"energy_fn": MLPEnergy((2,))}
    keyed = {"rng_key": KEY}
    return {
        "annealed_importance_sampling": Call(
            evaluation.annealed_importance_sampling,
            {"energy_fn": both["energy_fn"], "theta": both["theta"], "rng_key": KEY}
            | {"num_particles": 4, "num_temperatures": 2},
            {"energy_fn": "model", "theta": "theta", "rng_key": "key", "num_particles": "count"}
            | {"num_temperatures": "count"},
            (no_free_energy, {"num_particles": 1}),
        ),
        "log_likelihood": Call(
            evaluation.log_likelihood,
            {**marginal, "log_partition": 0.0},
            {**kinds, "log_partition": "number"},
            (no_free_energy, {"log_partition": np.zeros(12)}, {"log_partition": np.zeros((12, 1))}),
        ),
        "score_matching_objective": Call(
            evaluation.score_matching_objective,
            {**marginal, "batch_size": 4},
            {**kinds, "batch_size": "batch_size"},
            (no_free_energy,),
        ),
        "sliced_score_matching_objective": Call(
            evaluation.sliced_score_matching_objective,
            {**marginal, **keyed, "num_projections": 1, "batch_size": 4},
            {**kinds, "rng_key": "key", "num_projections": "count", "batch_size": "batch_size"},
            (no_free_energy,),
        ),
        "fisher_divergence": Call(
            evaluation.fisher_divergence,
            {**marginal, "data_log_prob_fn": log_prob, "batch_size": 4},
            {**kinds, "data_log_prob_fn": "function", "batch_size": "batch_size"},
            (
                {"data_log_prob_fn": lambda v: v},
                {"data_log_prob_fn": _broken},
                {"data_log_prob_fn": lambda v: 0.0},
            ),
        ),
        "critic_fisher_divergence": Call(
            evaluation.critic_fisher_divergence,
            {**both, **keyed, "num_particles": 2, "variance_reduced": False, "critic": MLPCritic((2,))}
            | {"learning_rate": 1e-3, "num_steps": 2, "batch_size": 4, "num_projections": 1, "held_out": 0.3},
            {**lengths, "rng_key": "key", "num_particles": "count", "variance_reduced": "flag"}
            | {
                "critic": "model",
                "learning_rate": "positive",
                "num_steps": "count",
                "batch_size": "batch_size",
            }
            | {"num_projections": "count", "held_out": "fraction"},
            (
                {"held_out": 0.0},
                {"critic": lambda params, v: v},
                {"posterior_fn": None, **no_free_energy},
                {"posterior_fn": lambda phi, v: v},
                {"v": _ROWS[:2]},
            ),
        ),
        "gradient_bias": Call(
            evaluation.gradient_bias,
            {**both, **keyed, "objective": DSM(0.1), "divergence": KL(), "optimizer": optax.sgd(0.1)}
            | {"num_steps": (0, 1), "lower_steps": (0,), "num_draws": 2},
            {**lengths, "rng_key": "key", "objective": "instance", "divergence": "instance"}
            | {"optimizer": "instance", "num_steps": "counts", "lower_steps": "counts", "num_draws": "count"},
            ({"num_draws": 1}, {"num_steps": (1, 0)}, {"objective": KL()}, {"divergence": DSM(0.1)}),
        ),
        "posterior_gap": Call(
            evaluation.posterior_gap,
            both,
            lengths,
            (
                {"posterior_fn": lambda phi, v: v, "phi": None},
                {"posterior_fn": lambda phi, v: dist.Normal(v[:, :1], 1.0).to_event(1), "phi": None},
                no_free_energy,
            ),
        ),
        "ood_scores": Call(
            evaluation.ood_scores,
            {**both, **keyed, "score": "bound", "num_particles": 2, "batch_size": 5},
            {
                **lengths,
                "rng_key": "key",
                "score": "choice",
                "num_particles": "count",
                "batch_size": "batch_size",
            },
            (
                {"energy_fn": lambda theta, v, h: v},
                {"posterior_fn": lambda phi, v: v},
                {"score": "score_norm", "rng_key": 0},
            ),
        ),
        "latent_probe": Call(
            evaluation.latent_probe,
            {"posterior_fn": both["posterior_fn"], "phi": both["phi"], "train": _ROWS, "test": _ROWS}
            | {"train_labels": np.arange(12) % 2, "test_labels": np.arange(12) % 2, "batch_size": 5},
            {"posterior_fn": "model", "phi": "phi", "train": "rows", "test": "rows"}
            | {"train_labels": "labels", "test_labels": "labels", "batch_size": "batch_size"},
            (
                {"train_labels": np.zeros(12, int)},
                {"train_labels": np.arange(11)},
                {"posterior_fn": lambda phi, v: v},
                {"test": np.ones((12, 3), np.float32)},
            ),
            {"test_labels: one class": "the rows of a test may be of one class"},
        ),
    }


def _of_kinds_of_models() -> dict[str, Call]:
    module = NNXEnergy()
    theta = nnx.to_pure_dict(nnx.state(module))
    found = {}
    for what, energy_fn, params in (
        ("an NNX module", module, theta),
        ("a function", free_energy, {"w": jnp.ones((2, 3))}),
    ):
        found[f"log_likelihood of {what}"] = Call(
            evaluation.log_likelihood,
            {"energy_fn": energy_fn, "theta": params, "v": _ROWS, "log_partition": 0.0},
            {"theta": "theta", "v": "rows"},
            allowed={
                "theta: of other shapes": "a function of one's own, which takes them",
                "theta: integers": "a function of one's own, which takes them",
            }
            if what == "a function"
            else {},
        )
        found[f"score_matching_objective of {what}"] = Call(
            evaluation.score_matching_objective,
            {"energy_fn": energy_fn, "theta": params, "v": _ROWS},
            {"v": "rows"},
        )
    return found


def _of_features() -> dict[str, Call]:
    pair = {"x": _ROWS, "y": _ROWS + 1}
    kinds = {"x": "features", "y": "features"}
    huge = ({"x": _ROWS * np.float32(1e30)}, {"y": _ROWS.astype(np.float64) * 1e160})
    scores = {"in_scores": _ROWS[:, 0], "out_scores": _ROWS[:, 1]}
    return {
        "energy_distance": Call(evaluation.energy_distance, pair, kinds, huge),
        "maximum_mean_discrepancy": Call(
            evaluation.maximum_mean_discrepancy,
            {**pair, "bandwidth": 1.0},
            {**kinds, "bandwidth": "positive"},
            (
                *huge,
                *({"bandwidth": jnp.asarray(value)} for value in (-1.0, np.nan, np.inf, 0.0)),
                *({"bandwidth": value} for value in (jnp.ones(2), np.asarray(-1.0), jnp.ones((1,)))),
            ),
        ),
        "frechet_distance": Call(evaluation.frechet_distance, pair, kinds, (huge[1], {"x": "FID"})),
        "kernel_distance": Call(
            evaluation.kernel_distance,
            {**pair, "rng_key": KEY, "subset_size": 4},
            {**kinds, "rng_key": "key", "subset_size": "count"},
            (huge[1], {"subset_size": 1}, {"subset_size": 7}),
        ),
        "precision_recall": Call(
            evaluation.precision_recall,
            {"data": _ROWS, "samples": _ROWS, "num_neighbours": 2},
            {"data": "features", "samples": "features", "num_neighbours": "count"},
            ({"num_neighbours": 12},),
        ),
        "auroc": Call(
            evaluation.auroc,
            scores,
            dict.fromkeys(scores, "numbers"),
            allowed={f"{name}: infinite": "an energy may be infinite, and has its rank" for name in scores},
        ),
        "distance_label": Call(
            evaluation.distance_label,
            {"distance": "kernel distance", "features": "CifarResNet@0"},
            {"distance": "choice", "features": "text"},
        ),
    }


def _of_images() -> dict[str, Call]:
    scaled = (
        {"images": (255 * _IMAGES)},
        {"images": (255 * _IMAGES).astype(np.uint8)},
        {"images": 2 * _IMAGES - 1},
        {"images": np.moveaxis(_IMAGES, -1, 1)},
        {"images": _IMAGES[:, :, :, 0]},
    )
    features = {"feature_fn": classifier(), "images": _IMAGES, "batch_size": 5}
    kinds = {"feature_fn": "instance", "images": "rows", "batch_size": "batch_size"}
    fns = (
        {"feature_fn": lambda images: images},
        {"feature_fn": _Named(lambda images: images)},
        {"feature_fn": _Named(_broken)},
        {"feature_fn": _Named(lambda images: np.full((len(images), 2), np.nan))},
        {"feature_fn": _Named(lambda images: "features")},
    )
    probabilities = np.full((4, 2), 0.5, np.float32)
    return {
        "extract_features": Call(evaluation.extract_features, features, kinds, (*scaled, *fns)),
        "feature_statistics": Call(
            evaluation.feature_statistics,
            {**features, "data": "mnist"},
            {**kinds, "data": "text"},
            (*scaled, *fns),
        ),
        "class_probabilities": Call(
            evaluation.class_probabilities,
            {"classifier": classifier(), "images": _IMAGES, "batch_size": 5},
            {"classifier": "instance", "images": "rows", "batch_size": "batch_size"},
            scaled,
        ),
        "class_coverage": Call(
            evaluation.class_coverage,
            {"probabilities": probabilities, "threshold": 0.4},
            {"probabilities": "features", "threshold": "fraction"},
            ({"probabilities": probabilities * 2}, {"probabilities": probabilities - [[1.0, -1.0]]}),
        ),
        "train_image_classifier": Call(
            evaluation.train_image_classifier,
            {
                "images": _IMAGES,
                "labels": np.arange(12) % 3,
                "rng_key": KEY,
                "num_epochs": 1,
                "batch_size": 6,
            },
            {
                "images": "rows",
                "labels": "labels",
                "rng_key": "key",
                "num_epochs": "count",
                "batch_size": "count",
            },
            (
                *scaled,
                {"batch_size": 13},
                {"labels": np.zeros(12, int)},
                {"labels": np.arange(12) - 1},
                {"labels": np.arange(11)},
                {"labels": np.arange(12) * 0.5},
            ),
            {"images: one column more": "images of another size"},
        ),
    }


class _Named:
    """A function with the name that a feature function has."""

    def __init__(self, fn: Any) -> None:
        self.name, self.fn = "mine", fn

    def __call__(self, images: Any) -> Any:
        return self.fn(images)


def _of_statistics() -> dict[str, Call]:
    statistics = evaluation.FeatureStatistics
    named = statistics.of(_ROWS, features="f", data="d")
    folder = scratch_folder()
    named.save(folder / "statistics.npz")
    (folder / "text.npz").write_text("no archive")
    np.savez(folder / "other.npz", mean=np.ones(2))
    return {
        "FeatureStatistics.of": Call(
            statistics.of,
            {"rows": _ROWS, "features": "f", "data": "d"},
            {"rows": "numbers", "features": "text", "data": "text"},
        ),
        "FeatureStatistics.merge": Call(
            named.merge,
            {"other": named},
            {"other": "instance"},
            (
                {"other": statistics.of(_ROWS, features="g", data="d")},
                {"other": statistics.of(_ROWS, features="f", data="e")},
                {"other": statistics.of(_ROWS[:, :1], features="f", data="d")},
            ),
        ),
        "FeatureStatistics.save": Call(
            named.save,
            {"path": folder / "again.npz"},
            {"path": "path"},
            ({"path": folder}, {"path": folder / "none" / "x.npz"}),
        ),
        "FeatureStatistics.load": Call(
            statistics.load,
            {"path": folder / "statistics.npz", "features": "f", "data": "d"},
            {"path": "path", "features": "text", "data": "text"},
            (
                {"path": folder / "none.npz"},
                {"path": folder},
                {"path": folder / "text.npz"},
                {"path": folder / "other.npz"},
                {"features": "g"},
                {"data": "e"},
            ),
        ),
    }
