"""The golden values of a 3 x 2 GRBM with frozen noise, and the library's problem at their inputs."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from bism_jax.hypergradient import LowerProblem
from bism_jax.methods import BilevelProblem, LevelNoise
from bism_jax.models import GRBM, BernoulliPosterior, RelaxedBernoulli
from bism_jax.objectives import DSM, KL, SM, SSM

# The form of the latents in the Jacobian of SSM and SM -> the option that chooses it.
LATENT_OPTIONS = {"fixed": {}}


def load():
    """The `inputs` and `cases` that `python -m tests.golden_values.write` wrote."""
    return json.loads((Path(__file__).parent / "golden_values" / "golden.json").read_text())


def arrays(tree):
    return {name: jnp.asarray(value) for name, value in tree.items()}


def theta_of(tree):
    tree = arrays(tree)
    return {"params": {"W": tree["W"], "b": tree["b_v"], "c": tree["b_h"], "log_std": tree["log_std"]}}


def phi_of(tree):
    tree = arrays(tree)
    return {"params": {"MLP_0": {"Dense_0": {"kernel": tree["A"].T, "bias": tree["c"]}}}}


def make_objective(inputs, name="DSM", latents=None):
    """The objective of a case; DSM has no Jacobian for a form of the latents to enter."""
    if name == "DSM":
        return DSM(inputs["noise_std"])
    return {"SSM": SSM, "SM": SM}[name](**LATENT_OPTIONS[latents])


def noise(inputs, level, objective="DSM"):
    """The noise of both losses at a level, `"inner"` or `"outer"`; the lower level does not use SSM's."""
    latent = jnp.asarray(inputs[f"g_on_{level}"]) - jnp.asarray(inputs[f"g_off_{level}"])
    visible = {"DSM": inputs[f"eps_{level}"], "SSM": inputs["projection"]}
    return LevelNoise(
        () if objective == "SM" else jnp.asarray(visible[objective], latent.dtype), latent[None]
    )


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


def setup(inputs, spec, temperature, objective="DSM", latents=None):
    """The bilevel losses, the lower problem, its input of a step, theta and phi."""
    losses = BilevelProblem(
        GRBM(2).apply,
        lambda phi, v: RelaxedBernoulli(BernoulliPosterior(2).apply(phi, v).logits, temperature),
        make_objective(inputs, objective, latents),
        KL(),
    )
    v = jnp.asarray(inputs["v"])
    problem = LowerProblem(losses.lower_loss, optimizer(spec))
    lower_input = losses.lower_input(v, noise(inputs, "inner", objective))
    return losses, problem, lower_input, theta_of(inputs["theta"]), phi_of(inputs["phi0"]), v
