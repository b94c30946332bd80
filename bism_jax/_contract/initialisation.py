"""Initial parameters of a model."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._contract import Model, draw_latents
from bism_jax._precision import as_working
from bism_jax._tracing.compilation import call_compiled
from bism_jax.errors import ModelError
from bism_jax.typing import Params


def init_latent_model(
    energy: Model,
    posterior: Model,
    rng_key: Key[Array, ""],
    batch: Float[Array, "batch *visible"],
    init_params: tuple[Params, Params] | None,
) -> tuple[Params, Params]:
    """`init_params`, or what the modules initialise on a batch and a latent sample for it.

    Raises:
        ModelError: where a plain function comes without `init_params`.
    """
    if init_params is not None:
        return given_params(init_params)
    for model, argument in ((posterior, "posterior_fn"), (energy, "energy_fn")):
        if model.init is None:
            raise _missing(model, argument)

    def initialise(rng_key: Key[Array, ""], v: Array) -> tuple[Params, Params]:
        phi_key, sample_key, theta_key = jax.random.split(rng_key, 3)
        phi = init_module(posterior, "posterior_fn", phi_key, v)
        h = draw_latents(posterior.apply(phi, v), sample_key)
        origin = ", the latter drawn from posterior_fn"
        return init_module(energy, "energy_fn", theta_key, v, h, origin=origin), phi

    return call_compiled(initialise, rng_key, batch)


def init_free_energy(
    energy: Model,
    rng_key: Key[Array, ""],
    batch: Float[Array, "batch *visible"],
    init_params: tuple[Params, Params] | None,
) -> Params:
    """Likewise for a model of which only the free energy is used."""
    if init_params is not None:
        return _given(init_params)[0]
    if energy.init is None:
        raise _missing(energy, "energy_fn")
    return jax.tree.map(as_working, energy.init(rng_key, batch, method="free_energy"))


def init_joint_energy(
    energy: Model,
    rng_key: Key[Array, ""],
    batch: Float[Array, "batch *visible"],
    h: Float[Array, "batch *latent"],
    init_params: tuple[Params, Params] | None,
) -> Params:
    """Likewise for a model of which the energy of (v, h) is used, without a posterior."""
    if init_params is not None:
        return _given(init_params)[0]
    origin = ", the latter of the shape that the method's latents have (latent_shape, num_hidden)"
    return init_module(energy, "energy_fn", rng_key, batch, h, origin=origin)


def given_params(init_params: tuple[Params, Params]) -> tuple[Params, Params]:
    """The pair (theta, phi) of a user, checked; raises ValueError where it is none or lacks phi."""
    theta, phi = _given(init_params)
    if phi is None:
        raise ValueError("init_params: phi is None, but the method fits a posterior; pass (theta, phi).")
    return theta, phi


def init_module(
    model: Model, argument: str, rng_key: Key[Array, ""], *args: Array, origin: str = ""
) -> Params:
    """What a module initialises on arrays; raises ModelError naming `argument` where it cannot.

    `origin` says in the message where the arrays come from.
    """
    if model.init is None:
        raise _missing(model, argument)
    try:
        # Compiled, the forward pass is dropped as dead code.
        return jax.tree.map(as_working, call_compiled(model.init, rng_key, *args))
    except ModelError:
        raise
    except Exception as error:
        shapes = " and ".join(str(arg.shape) for arg in args)
        raise ModelError(
            f"{argument}={model.name} cannot be initialised on arrays of shapes {shapes}{origin}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _given(init_params: tuple[Params, Params]) -> tuple[Params, Params]:
    if not isinstance(init_params, tuple) or len(init_params) != 2:
        what = (
            "a whole FitResult; pass init_params=(result.theta, result.phi)"
            if "theta" in getattr(init_params, "_fields", ())
            else f"a {type(init_params).__name__}"
        )
        raise ValueError(
            f"init_params must be a pair (theta, phi), with phi None where there is no posterior, not {what}."
        )
    for name, params in zip(("theta", "phi"), init_params, strict=True):
        if name == "theta" or params is not None:
            checks.no_result(f"init_params: {name}", params)
            checks.parameters(f"init_params: {name}", params)
    return jax.tree.map(as_working, init_params)


def _missing(model: Model, argument: str) -> ModelError:
    return ModelError(
        f"{argument}={model.name} is a plain function, so its parameters must be given: pass "
        "init_params=(theta, phi), or a Flax module."
    )
