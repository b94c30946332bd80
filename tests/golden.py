"""The golden values: a 3 x 2 GRBM with frozen noise, from an independent implementation."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from bism_jax.hypergradient import LowerProblem
from bism_jax.methods import BilevelProblem, LevelNoise
from bism_jax.models import GRBM, BernoulliPosterior, RelaxedBernoulli
from bism_jax.objectives import DSM, KL


def load(data_dir):
    return json.loads((Path(data_dir).parent / "reference" / "golden_bidsm.json").read_text())


def available():
    root = os.environ.get("BISM_JAX_DATA")
    return root is not None and (Path(root).parent / "reference" / "golden_bidsm.json").exists()


def arrays(tree):
    return {name: jnp.asarray(value) for name, value in tree.items()}


def theta_of(tree):
    tree = arrays(tree)
    return {"params": {"W": tree["W"], "b": tree["b_v"], "c": tree["b_h"], "log_std": tree["log_std"]}}


def phi_of(tree):
    tree = arrays(tree)
    return {"params": {"MLP_0": {"Dense_0": {"kernel": tree["A"].T, "bias": tree["c"]}}}}


def noise(inputs, level):
    latent = jnp.asarray(inputs[f"g_on_{level}"]) - jnp.asarray(inputs[f"g_off_{level}"])
    return LevelNoise(jnp.asarray(inputs[f"eps_{level}"]), latent[None])


def adam_eps_inside(spec):
    """Adam whose epsilon is added before the bias correction, with moments that may be given."""
    rate, (b1, b2), eps = spec["lr"], spec["betas"], spec["eps"]

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        if "m0" not in spec:
            return zeros, zeros, jnp.zeros((), jnp.int32)
        return phi_of(spec["m0"]), phi_of(spec["s0"]), jnp.asarray(spec["t0"], jnp.int32)

    def update(grads, state, params=None):
        first, second, count = state
        count = count + 1
        first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, first, grads)
        second = jax.tree.map(lambda s, g: b2 * s + (1 - b2) * g**2, second, grads)
        size = rate * jnp.sqrt(1 - b2**count) / (1 - b1**count)
        updates = jax.tree.map(lambda m, s: -size * m / (jnp.sqrt(s) + eps), first, second)
        return updates, (first, second, count)

    return optax.GradientTransformation(init, update)


def optimizer(spec):
    if spec["kind"] == "sgd":
        return optax.sgd(spec["lr"])
    if spec["eps_mode"] == "standard":
        return optax.adam(spec["lr"], *spec["betas"], eps=spec["eps"])
    return adam_eps_inside(spec)


def setup(inputs, spec, temperature):
    """The bilevel losses, the lower problem, its input of a step, theta and phi."""
    losses = BilevelProblem(
        GRBM(2).apply,
        lambda phi, v: RelaxedBernoulli(BernoulliPosterior(2).apply(phi, v).logits, temperature),
        DSM(inputs["noise_std"]),
        KL(),
    )
    v = jnp.asarray(inputs["v"])
    problem = LowerProblem(losses.lower_loss, optimizer(spec))
    lower_input = losses.lower_input(v, noise(inputs, "inner"))
    return losses, problem, lower_input, theta_of(inputs["theta"]), phi_of(inputs["phi0"]), v
