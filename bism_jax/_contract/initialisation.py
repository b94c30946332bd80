"""Initial parameters of a model, which is checked on them and a batch."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._contract import Model, draw_latents
from bism_jax._contract.model_checks import check_free_energy, check_joint_energy, check_latent_model
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
        ModelError: where a plain function comes without `init_params`, or either model breaks its contract.
        ValueError: where `init_params` is no pair of parameters.
    """
    theta, phi = (
        _initialise(energy, posterior, rng_key, batch) if init_params is None else given_params(init_params)
    )
    check_latent_model(energy, posterior, theta, phi, batch)
    return theta, phi


def _initialise(
    energy: Model, posterior: Model, rng_key: Key[Array, ""], batch: Array
) -> tuple[Params, Params]:
    for model, argument in ((posterior, "posterior_fn"), (energy, "energy_fn")):
        if model.init is None:
            raise _missing(model, argument)

    def initialise(rng_key: Key[Array, ""], v: Array) -> tuple[Params, Params]:
        # The energy after the posterior, since the shape of h is that of a draw of the latter.
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
    """Theta for the free energy of a model, as `marginal_model` gives it; raises as `init_latent_model`."""
    if init_params is not None or energy.init is None:
        theta = given_theta(energy, init_params)
    else:
        theta = jax.tree.map(as_working, energy.init(rng_key, batch, method="free_energy"))
    check_free_energy(energy, theta, batch)
    return theta


def init_joint_energy(
    energy: Model,
    rng_key: Key[Array, ""],
    batch: Float[Array, "batch *visible"],
    h: Float[Array, "batch *latent"],
    init_params: tuple[Params, Params] | None,
) -> Params:
    """Theta for the energy of (v, h) without a posterior; raises as `init_latent_model`."""
    if init_params is not None:
        theta = given_theta(energy, init_params)
    else:
        origin = ", the latter of the shape that the method's latents have (latent_shape, num_hidden)"
        theta = init_module(energy, "energy_fn", rng_key, batch, h, origin=origin)
    check_joint_energy(energy, theta, batch, h)
    return theta


def given_theta(energy: Model, init_params: tuple[Params, Params] | None) -> Params:
    """The checked theta of `init_params`; raises ModelError where a plain function comes without it."""
    if init_params is None:
        raise _missing(energy, "energy_fn")
    return _given(init_params)[0]


def given_params(init_params: tuple[Params, Params]) -> tuple[Params, Params]:
    """The checked pair (theta, phi) of `init_params`; raises ValueError for another value or without phi."""
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
    except ModelError:  # has named its argument already
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
    # In bfloat16 a parameter of 1 would not feel a step of 1e-4.
    return jax.tree.map(as_working, init_params)


def _missing(model: Model, argument: str) -> ModelError:
    return ModelError(
        f"{argument}={model.name} is a plain function, so its parameters must be given: pass "
        "init_params=(theta, phi), or a Flax module."
    )
