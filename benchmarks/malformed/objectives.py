"""Malformed calls of `bism_jax.objectives`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from benchmarks.malformed.campaign import Call
from bism_jax import objectives
from bism_jax.objectives import DSM, KL, KSD, MDSM, SM, SSM, Fisher, LatentSample, PointwiseObjective

PACKAGE = "bism_jax.objectives"
EXEMPT = {
    "Divergence": "a protocol",
    "Objective": "a protocol",
    "PointwiseObjective": "a protocol",
    "Fisher": "takes no arguments; its loss has an entry",
    "LatentSample": "a result",
    "MultiscaleNoise": "a result",
    "factored_score": "of what the methods have checked",
}
KEY = jax.random.key(0)
V = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32)
_TRACED = "values are traced as a rule; fit looks at all of its data"
_NAN = {"v: NaN": _TRACED, "v: infinite": _TRACED}
_SHAPES = ((0,), [2], 3, (-1,), ("a",), None)


def score(v: Any) -> Any:
    """Of a standard normal."""
    return -v


def energy(theta: Any, v: Any, h: Any) -> Any:
    """A quadratic, `[B]`."""
    return theta["w"] * (v**2).sum(-1) + (h**2).sum(-1)


def posterior(phi: Any, v: Any) -> Any:
    """A Gaussian whose mean is linear in v."""
    return dist.Normal(v * phi["w"], jnp.ones_like(v)).to_event(1)


def _noises(objective: Any) -> tuple[dict[str, Any], ...]:
    noise = objective.draw_noise(KEY, V)
    bad: list[Any] = [None, "x", V[:1], V[0], V[:, :1], jnp.ones(())]
    if isinstance(objective, MDSM):
        bad += [V, noise._replace(std=noise.std[:1]), noise._replace(eps=V[:1]), (noise.std, noise.eps)]
    return tuple({"noise": other} for other in bad)


def _draws() -> dict[str, Call]:
    named: dict[str, Any] = {"DSM": DSM(0.1), "MDSM": MDSM(), "SSM": SSM()}
    shapes = tuple({"sample_shape": shape} for shape in _SHAPES[1:])
    return {
        f"{name}.draw_noise": Call(
            objective.draw_noise,
            {"rng_key": KEY, "v": V, "sample_shape": (2,)},
            {"rng_key": "key", "v": "rows"},
            shapes,
            {
                "v: one axis less": "a batch of numbers",
                "v: one axis more": "a batch of pictures",
                "v: one column more": "only the shape is read",
                **_NAN,
            },
        )
        for name, objective in named.items()
    }


def _losses() -> dict[str, Call]:
    wrong_scores = tuple(
        {"score_fn": fn} for fn in (lambda v: v[:1], lambda v: v.sum(-1), lambda v: 0.0, lambda v: None)
    )
    found = {}
    named: dict[str, Any] = {"DSM": DSM(0.1), "MDSM": MDSM(), "SSM": SSM(), "SM": SM(), "KSD": KSD()}
    for name, objective in named.items():
        noises = _noises(objective) if name in ("DSM", "MDSM", "SSM") else ()
        rows = _NAN | (
            {} if noises else dict.fromkeys(("v: one axis less", "v: one axis more"), "any shape has a score")
        )
        rows |= {} if noises else {"v: one column more": "any shape has a score"}
        arguments: dict[str, Any] = {"v": V, "noise": objective.draw_noise(KEY, V)}
        found[f"{name}.loss"] = Call(
            objective.loss,
            {"score_fn": score, **arguments},
            {"score_fn": "function", "v": "rows"},
            (*wrong_scores, *noises),
            rows,
        )
        if isinstance(objective, PointwiseObjective):
            scores = tuple({"score": bad} for bad in (V[:1], V[0], V.sum(-1), 0.0, None, "x"))
            found[f"{name}.pointwise_loss"] = Call(
                objective.pointwise_loss,
                {"score": V, **arguments},
                {"v": "rows"},
                (*scores, *noises),
                _NAN,
            )
    found["KSD.loss of an odd batch"] = Call(
        KSD().loss, {"score_fn": score, "v": V, "noise": ()}, {}, ({"v": V[:5]},)
    )
    return found


def _divergences() -> dict[str, Call]:
    q = posterior({"w": 0.5}, V)
    keys = objectives.draw_latent_noise(KEY, q, (3,))
    arguments: dict[str, Any] = {
        "energy_fn": energy,
        "theta": {"w": 1.0},
        "posterior": q,
        "v": V,
        "noise": keys,
    }
    kinds = {"energy_fn": "function", "posterior": "instance", "v": "rows"}
    energies = (lambda theta, v, h: 0.0, lambda theta, v, h: v, lambda theta, v, h: v.sum(-1)[:, None])
    specials: tuple[dict[str, Any], ...] = tuple({"energy_fn": fn} for fn in energies)
    specials += tuple({"noise": bad} for bad in (None, (), keys[:0], keys[0]))
    specials += ({"posterior": dist.Normal(V, 1.0)}, {"posterior": posterior({"w": 0.5}, V[:3])})
    rows = {**_NAN, "v: one column more": "the energy takes any number of columns"}
    return {
        f"{type(divergence).__name__}.loss": Call(divergence.loss, arguments, kinds, specials, rows)
        for divergence in (KL(), Fisher())
    }


def _scores() -> dict[str, Call]:
    phi, theta = {"w": jnp.ones(2)}, {"w": 1.0}
    sample = LatentSample(V)
    given: dict[str, Any] = {"energy_fn": energy, "posterior_fn": posterior, "theta": theta, "phi": phi}
    kinds = {"energy_fn": "function", "posterior_fn": "function"}
    later = {f"{name}: no_arguments": "it is called with v" for name in kinds}

    def latent(v: Any, energy_fn: Any = energy, posterior_fn: Any = posterior, sample: Any = sample) -> Any:
        return objectives.latent_score(energy_fn, posterior_fn, theta, phi, sample)(v)

    def marginal(v: Any, free_energy_fn: Any) -> Any:
        return objectives.marginal_score(free_energy_fn, theta)(v)

    free: dict[str, Any] = {"free_energy_fn": lambda theta, v: (v**2).sum(-1), "theta": theta}
    sums = tuple({"free_energy_fn": fn} for fn in (lambda theta, v: v.sum(), lambda theta, v: v))
    return {
        "latent_score": Call(objectives.latent_score, {**given, "sample": sample}, kinds, (), later),
        "moving_latent_score": Call(
            objectives.moving_latent_score, {**given, "noise": KEY}, kinds, (), later
        ),
        "latent_score of v": Call(
            latent,
            {"v": V, "sample": sample},
            {"sample": "instance"},
            ({"v": V.astype(int)}, {"v": "x"}, {"v": V[:0]}, {"energy_fn": lambda theta, v, h: v.sum()}),
        ),
        "marginal_score": Call(
            objectives.marginal_score,
            free,
            {"free_energy_fn": "function"},
            (),
            {"free_energy_fn: no_arguments": "it is called with v"},
        ),
        "marginal_score of v": Call(
            marginal,
            {"v": V, "free_energy_fn": free["free_energy_fn"]},
            {"v": "rows"},
            sums,
            _NAN
            | dict.fromkeys(("v: one axis less", "v: one axis more"), "the energy takes any shape")
            | {"v: one column more": "the energy takes any shape"},
        ),
    }


def calls() -> dict[str, Call]:
    """One valid call for each public name."""
    q = posterior({"w": 0.5}, V)
    level = "positive"
    return {
        "DSM": Call(DSM, {"noise_std": 0.1}, {"noise_std": level}),
        "MDSM": Call(
            MDSM,
            {"min_std": 0.1, "max_std": 1.0, "base_std": 0.1, "spacing": "geometric"},
            {"min_std": level, "max_std": level, "base_std": level, "spacing": "choice"},
            ({"min_std": 2.0},),
        ),
        "MDSM.noise_levels": Call(MDSM().noise_levels, {"batch_size": 4}, {"batch_size": "batch_size"}),
        "MDSM.lower_weight": Call(
            MDSM().lower_weight, {"noise": MDSM().draw_noise(KEY, V)}, {"noise": "instance"}
        ),
        "SSM": Call(
            SSM,
            {"projection": "gaussian", "latents": "fixed"},
            {"projection": "choice", "latents": "choice"},
        ),
        "SM": Call(SM, {"latents": "fixed"}, {"latents": "choice"}),
        "KSD": Call(KSD, {"bandwidth": 0.1}, {"bandwidth": level}),
        "KL": Call(KL, {"importance_weighted": True}, {"importance_weighted": "flag"}),
        **_draws(),
        **_losses(),
        **_divergences(),
        **_scores(),
        "draw_latent_noise": Call(
            objectives.draw_latent_noise,
            {"rng_key": KEY, "posterior": q, "sample_shape": (2,)},
            {"rng_key": "key", "posterior": "instance"},
            tuple({"sample_shape": shape} for shape in _SHAPES[1:]),
        ),
        "draw_latents": Call(
            objectives.draw_latents,
            {"posterior": q, "rng_key": KEY},
            {"rng_key": "key", "posterior": "instance"},
        ),
        "sample_latents": Call(
            objectives.sample_latents,
            {"posterior": q, "noise": KEY},
            {"posterior": "instance"},
            ({"noise": None}, {"noise": V}),
        ),
        "latent_log_prob": Call(
            objectives.latent_log_prob,
            {"posterior": q, "sample": LatentSample(V)},
            {"posterior": "instance", "sample": "instance"},
            ({"sample": V},),
        ),
        "map_particles": Call(
            objectives.map_particles,
            {"fn": lambda noise: noise, "noise": V},
            {"fn": "function"},
            ({"noise": ()}, {"noise": jnp.ones(())}, {"noise": V[:0]}, {"noise": (V, V[:3])}),
        ),
        "sum_events": Call(
            objectives.sum_events,
            {"x": V},
            {},
            ({"x": jnp.ones(())}, {"x": "x"}, {"x": None}, {"x": 3.0}),
        ),
    }
