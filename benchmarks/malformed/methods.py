"""Malformed calls of `bism_jax.methods`: their options, and what they are bound to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax

from benchmarks.malformed.campaign import Call
from bism_jax import DSM, KL, KSD, MDSM, SM, FitResult, StopGradient, Unrolled, methods
from bism_jax.methods import Gibbs, Optimizers, paper_adam
from bism_jax.models import GRBM, BernoulliPosterior, GaussianPosterior, MLPDecoder, MLPEnergy

PACKAGE = "bism_jax.methods"
_RESULTS = (
    "BiSMNoise ChainState CodecNoise CodecParams EnergyInfo EnergyState LatentInfo LatentState LevelNoise "
    "LowerInput NCEInfo NCEState PersistentState PersistentVIState ScaledParameters VNCEInfo VNCENoise "
    "VNCEState VaGESNoise Variational"
)
EXEMPT = {
    **dict.fromkeys(_RESULTS.split(), "a result, or a part of one"),
    "BilevelProblem": "made by methods of arguments that they have checked",
    "CodecLosses": "likewise",
    "Chain": "a protocol",
    "MissingCapability": "raised by methods and evaluations",
    "ModelError": "likewise",
    "Prior": "a protocol",
    "Optimizers": "a pair, which the methods check",
    "Fadeout": "takes no arguments",
    "Gibbs": "takes no arguments",
}
KEY = jax.random.key(0)
V: Any = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
ENERGY, POSTERIOR = GRBM(2), BernoulliPosterior(2)
_SGD = optax.sgd(0.1)
_PAIR = Optimizers(_SGD, _SGD)
_QUICK: dict[str, Any] = {"optimizers": _PAIR}
_ASKING = {
    "lbfgs": optax.lbfgs(),
    "polyak": optax.polyak_sgd(),
    "plateau": optax.chain(_SGD, optax.contrib.reduce_on_plateau()),
    "search": optax.chain(_SGD, optax.scale_by_backtracking_linesearch(3)),
}
_HUGE = "a count is not compared with the memory there is"
_TRACED = "values are traced as a rule; fit looks at all of its data"
_STATE = "a batch of other rows is fine"


def start(method: Any) -> Callable[..., Any]:
    """Binds a method to a model and starts it."""

    def bind_and_init(
        energy_fn: Any, posterior_fn: Any, init_params: Any, rng_key: Any, batch: Any, optimizers: Any = None
    ) -> Any:
        chosen = method if optimizers is None else methods.BiSM(optimizers=optimizers)
        return chosen.bind(energy_fn, posterior_fn, init_params=init_params).init(rng_key, batch)

    return bind_and_init


def _start_with_noise(make: Callable[..., Any]) -> Callable[..., Any]:
    def init(
        energy_fn: Any, posterior_fn: Any, init_params: Any, rng_key: Any, batch: Any, noise: Any
    ) -> Any:
        return start(make(noise=noise))(energy_fn, posterior_fn, init_params, rng_key, batch)

    return init


def _theta_phi() -> tuple[Any, Any]:
    theta = ENERGY.init(KEY, V, np.zeros((8, 2), np.float32))
    return theta, POSTERIOR.init(KEY, V)


def _starts() -> dict[str, Call]:
    theta, phi = _theta_phi()
    result = FitResult(theta, phi, {}, None, [])
    other = MLPEnergy((3,)).init(KEY, V, np.zeros((8, 2), np.float32))
    wide = GRBM(3).init(KEY, V, np.zeros((8, 3), np.float32))
    params: tuple[Any, ...] = (
        result,
        (phi, theta),
        (result, phi),
        (theta, result),
        (other, phi),
        (wide, phi),
        (theta, theta),
    )
    params += ((theta,), [theta, phi], {"theta": theta})
    params += ((theta, None), (None, phi), "theta", 3)
    spoilt = jax.tree.map(lambda leaf: leaf * np.nan, theta)
    integers = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, int), theta)
    params += ((spoilt, phi), (integers, phi), ({}, phi), ({"w": "a"}, phi))
    given = tuple({"init_params": pair} for pair in params)
    valid: dict[str, Any] = {"energy_fn": ENERGY, "posterior_fn": POSTERIOR, "init_params": None}
    valid |= {"rng_key": KEY, "batch": V}
    kinds = {"energy_fn": "model", "rng_key": "key", "batch": "rows"}
    kinds |= {"posterior_fn": "model"}
    swapped = {"energy_fn": POSTERIOR, "posterior_fn": ENERGY}
    asking = tuple(
        {"optimizers": pair}
        for optimizer in _ASKING.values()
        for pair in (Optimizers(optimizer, _SGD), Optimizers(_SGD, optimizer))
    )
    rows = {"batch: one column more": "initial parameters fit any number of columns"}
    alone = {**valid, "posterior_fn": None}
    flat = {"energy_fn": "model", "rng_key": "key", "batch": "rows"}
    alone_given = tuple({"init_params": pair} for pair in (result, (phi, None), (result, None), (theta,), 3))
    needless = {"posterior_fn": POSTERIOR}
    single: dict[str, Any] = {
        "ScoreMatching.init": methods.ScoreMatching(DSM(0.1), _SGD),
        "NCE.init": methods.NCE(optimizer=_SGD),
        "ContrastiveDivergence.init": methods.ContrastiveDivergence(optimizer=_SGD),
        "PersistentContrastiveDivergence.init": methods.PersistentContrastiveDivergence(optimizer=_SGD),
        "PersistentVI.init": methods.PersistentVI(8, optimizer=_SGD),
    }
    latent: dict[str, Any] = {
        "VaGES.init": methods.VaGES(DSM(0.1), lower_steps=1, **_QUICK),
        "VNCE.init": methods.VNCE(lower_steps=1, **_QUICK),
        "BiDVL.init": methods.BiDVL(MLPDecoder((2,), (2,)), **_QUICK),
    }
    found = {
        "BiSM.init": Call(
            start(methods.BiSM(DSM(0.1), hypergradient=Unrolled(1), **_QUICK)),
            valid,
            kinds,
            (*given, swapped, *asking, {"energy_fn": lambda theta, v, h: v.sum()}),
            rows,
        )
    }
    for name, method in latent.items():
        arguments = {**valid, "posterior_fn": GaussianPosterior(2)} if name == "BiDVL.init" else valid
        found[name] = Call(start(method), arguments, kinds, given[:6], rows)
    for name, method in single.items():
        found[name] = Call(start(method), alone, flat, (*alone_given, needless), rows)
    of_one = (dist.Bernoulli(0.5), dist.Poisson(3.0), dist.Normal(np.zeros(3), 1.0))
    of_two = (dist.Uniform(10.0, 11.0), dist.Bernoulli(0.5))
    noises = tuple({"noise": one} for one in (*of_one, *(one.expand((2,)).to_event(1) for one in of_two)))
    for name, make in (("NCE", methods.NCE), ("VNCE", methods.VNCE)):
        arguments = {**(valid if name == "VNCE" else alone), "noise": None}
        found[f"{name}.init with noise"] = Call(_start_with_noise(make), arguments, {}, noises)
    return found


def _steps() -> dict[str, Call]:
    bound: dict[str, tuple[Any, Any]] = {
        "BiSM": (methods.BiSM(DSM(0.1), hypergradient=Unrolled(1), **_QUICK), POSTERIOR),
        "ScoreMatching": (methods.ScoreMatching(DSM(0.1), _SGD), None),
        "VaGES": (methods.VaGES(DSM(0.1), lower_steps=1, **_QUICK), POSTERIOR),
        "NCE": (methods.NCE(optimizer=_SGD), None),
        "PersistentContrastiveDivergence": (methods.PersistentContrastiveDivergence(optimizer=_SGD), None),
        "PersistentVI": (methods.PersistentVI(8, optimizer=_SGD), None),
    }
    states = {name: method.bind(ENERGY, q).init(KEY, V) for name, (method, q) in bound.items()}
    wide = methods.ScoreMatching(DSM(0.1), _SGD).bind(GRBM(3)).init(KEY, V)
    adam = methods.BiSM(DSM(0.1), optimizers=Optimizers(paper_adam(), paper_adam())).bind(ENERGY, POSTERIOR)
    adam_state = adam.init(KEY, V)
    theta, phi = _theta_phi()
    found: dict[str, Call] = {}
    for name, (method, q) in bound.items():
        state = states[name]
        others = [other for key, other in states.items() if type(other) is not type(state)]
        others += [wide] if name == "ScoreMatching" else []
        if name == "BiSM":
            others += [adam_state, state._replace(theta_opt_state=adam_state.theta_opt_state)]
            others += [state._replace(phi_opt_state=adam_state.phi_opt_state)]
            others += [state._replace(theta=state.phi, phi=state.theta), state._replace(theta=None)]
        others += [FitResult(theta, phi, {}, None, []), theta, (theta, phi), None]
        found[f"{name}.step"] = Call(
            method.bind(ENERGY, q).step,
            {"rng_key": KEY, "state": state, "batch": V},
            {"rng_key": "key", "state": "instance", "batch": "rows"},
            tuple({"state": other} for other in others),
            {"batch: NaN": _TRACED, "batch: infinite": _TRACED},
        )
    return found


def _counted(*names: str) -> dict[str, str]:
    return {f"{name}: huge": _HUGE for name in names}


def _options() -> dict[str, Call]:
    objective = {"objective": DSM(0.1)}
    wrong: tuple[dict[str, Any], ...] = (
        {"objective": KL()},
        {"divergence": DSM(0.1)},
        {"optimizers": (_SGD, _SGD)},
        {"optimizers": _SGD},
    )
    wrong += ({"optimizers": Optimizers(_SGD, 0.1)}, {"optimizers": Optimizers(optax.sgd, _SGD)})
    gibbs = {"chain": Gibbs(), "k": 1, "optimizer": _SGD}
    chain_kinds = {"chain": "instance", "k": "count", "optimizer": "instance"}
    return {
        "BiSM": Call(
            methods.BiSM,
            {**objective, "divergence": KL(), "lower_steps": 1, "hypergradient": Unrolled(1)}
            | {"optimizers": _PAIR, "noise": "shared", "keep_unrolled": True, "num_particles": 1}
            | {"particle_average": "losses"},
            {"objective": "instance", "divergence": "instance", "lower_steps": "count_from_0"}
            | {"hypergradient": "instance", "optimizers": "instance", "noise": "choice"}
            | {"keep_unrolled": "flag", "num_particles": "count", "particle_average": "choice"},
            (
                *wrong,
                {"lower_steps": 0, "hypergradient": StopGradient(0)},
                {"lower_steps": 0, "keep_unrolled": False},
                {"hypergradient": KL()},
            ),
            _counted("lower_steps", "num_particles"),
        ),
        "VaGES": Call(
            methods.VaGES,
            {**objective, "divergence": KL(), "lower_steps": 1, "num_particles": 2, "refinement": None}
            | {"variance_reduced": False, "biased_covariance": False, "optimizers": _PAIR},
            {"objective": "instance", "divergence": "instance", "lower_steps": "count"}
            | {"num_particles": "count", "variance_reduced": "flag", "biased_covariance": "flag"}
            | {"optimizers": "instance", "refinement": "instance"},
            (*wrong, {"objective": SM()}, {"num_particles": 1}, {"refinement": 5}),
            _counted("lower_steps", "num_particles"),
        ),
        "LangevinRefinement": Call(
            methods.LangevinRefinement,
            {"num_steps": 5, "step_size": 0.1},
            {"num_steps": "count", "step_size": "positive"},
            (),
            _counted("num_steps"),
        ),
        "VNCE": Call(
            methods.VNCE,
            {"lower_steps": 1, "noise_ratio": 1, "num_particles": 2, "noise": None, "optimizers": _PAIR},
            {"lower_steps": "count", "noise_ratio": "count", "num_particles": "count", "noise": "instance"}
            | {"optimizers": "instance"},
            wrong[2:],
            _counted("lower_steps", "noise_ratio", "num_particles"),
        ),
        "NCE": Call(
            methods.NCE,
            {"noise_ratio": 1, "noise": None, "optimizer": _SGD},
            {"noise_ratio": "count", "noise": "instance", "optimizer": "instance"},
            ({"noise": dist.Normal}, {"optimizer": optax.sgd}, {"optimizer": _PAIR}),
            _counted("noise_ratio"),
        ),
        "ScoreMatching": Call(
            methods.ScoreMatching,
            {**objective, "optimizer": _SGD, "free_energy": None},
            {"objective": "instance", "optimizer": "instance", "free_energy": "instance"},
            ({"objective": KL()}, {"optimizer": optax.sgd}, {"objective": DSM}),
        ),
        "BiDVL": Call(
            methods.BiDVL,
            {"decoder": MLPDecoder((2,)), "reconstruction_weight": 0.1, "hypergradient": StopGradient(1)}
            | {"optimizers": _PAIR},
            {"decoder": "model", "reconstruction_weight": "positive", "hypergradient": "instance"}
            | {"optimizers": "instance"},
            (*wrong[2:], {"hypergradient": StopGradient(0)}),
            {"decoder: no_arguments": "it is called by init"},
        ),
        "ContrastiveDivergence": Call(
            methods.ContrastiveDivergence, gibbs, chain_kinds, ({"chain": Gibbs},), _counted("k")
        ),
        "PersistentContrastiveDivergence": Call(
            methods.PersistentContrastiveDivergence,
            {**gibbs, "num_chains": 4},
            {**chain_kinds, "num_chains": "count"},
            (),
            _counted("k", "num_chains"),
        ),
        "PersistentVI": Call(
            methods.PersistentVI,
            {**gibbs, "num_data": 8, "num_chains": 4, "prior": methods.GaussianPrior()},
            {**chain_kinds, "num_data": "count", "num_chains": "count", "prior": "instance"},
            (),
            _counted("k", "num_chains", "num_data"),
        ),
        "PersistentVI.check_num_rows": Call(
            methods.PersistentVI(8).check_num_rows, {"num_rows": 8}, {}, ({"num_rows": 7}, {"num_rows": 80})
        ),
        "Langevin": Call(
            methods.Langevin,
            {"step_size": 0.1, "latent_shape": (2,), "latent_steps": 5},
            {"step_size": "positive", "latent_shape": "counts", "latent_steps": "count"},
            ({"latent_shape": (0,)},),
            _counted("latent_steps") | {"latent_shape: empty": "h is a number"},
        ),
        "UniformBinary": Call(
            methods.UniformBinary,
            {"num_hidden": 2, "num_particles": 2},
            {"num_hidden": "count", "num_particles": "count"},
            (),
            _counted("num_hidden", "num_particles"),
        ),
        "GaussianPrior": Call(methods.GaussianPrior, {"std": 1.0}, {"std": "positive"}),
    }


def _functions() -> dict[str, Call]:
    theta, phi = _theta_phi()
    vi = methods.PersistentVI(8)
    variational = methods.Variational(theta, theta)
    return {
        "supported_methods": Call(
            methods.supported_methods,
            {"energy_fn": ENERGY},
            {"energy_fn": "model"},
            (),
            {"energy_fn: no_arguments": "a function is taken at its word until it is called"},
        ),
        "counts_updates": Call(
            methods.counts_updates,
            {"optimizer": _SGD},
            {"optimizer": "instance"},
            ({"optimizer": optax.sgd},),
        ),
        "paper_adam": Call(
            methods.paper_adam,
            {"learning_rate": 1e-3},
            {"learning_rate": "non_negative"},
            ({"learning_rate": _SGD},),
        ),
        "picklable": Call(
            methods.picklable, {"builder": _build}, {"builder": "function"}, ({"builder": _SGD},)
        ),
        "PersistentVI.draw_theta": Call(
            vi.draw_theta,
            {"phi": variational, "rng_key": KEY, "num_samples": 2},
            {"phi": "instance", "rng_key": "key", "num_samples": "batch_size"},
            ({"phi": theta}, {"phi": phi}),
        ),
    }


def _build() -> optax.GradientTransformation:
    return optax.sgd(0.1)


def calls() -> dict[str, Call]:
    """One valid call for each public name."""
    odd = {"energy_fn": ENERGY, "posterior_fn": POSTERIOR, "init_params": None, "rng_key": KEY}
    one_row = Call(start(methods.BiSM(MDSM())), {**odd, "batch": V}, {}, ({"batch": V[:1]},))
    stein = methods.ScoreMatching(KSD(), _SGD).bind(ENERGY)
    pairs = Call(
        stein.step, {"rng_key": KEY, "state": stein.init(KEY, V), "batch": V}, {}, ({"batch": V[:7]},)
    )
    special = {"BiSM.init by MDSM": one_row, "ScoreMatching.step by KSD": pairs}
    return {**_options(), **_starts(), **_steps(), **special, **_functions()}
