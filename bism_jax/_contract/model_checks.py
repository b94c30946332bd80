"""The contract of an energy and a posterior, checked before anything is compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bism_jax._contract import (
    LatentSample,
    Model,
    draw_latent_noise,
    factor,
    is_factored,
    latent_log_prob,
    sample_latents,
)
from bism_jax._tracing.compilation import call_compiled
from bism_jax._tracing.jax_internals import is_traced
from bism_jax._tracing.jaxprs import has_gradient, is_inexact
from bism_jax.errors import ModelError
from bism_jax.typing import Params

_PROBE_ROWS = 4  # so that a check costs the same whatever the batch


def check_latent_model(
    energy: Model, posterior: Model, theta: Params, phi: Params, batch: Float[Array, "batch *visible"]
) -> None:
    """Checks an energy E(theta, v, h) and a posterior q(phi, v) on a batch.

    Raises:
        ModelError: for a posterior whose batch shape is not `(B,)` or whose samples are not
            reparameterised; an energy without a gradient in theta, v or h, or whose `features` and `head`
            are not its factors; either where it cannot be called, has the wrong shape, or gives a row what
            depends on the others.
    """
    h = _check_posterior(posterior, phi, batch)
    _check_energy(energy, theta, batch, h)
    _check_factors(energy, theta, batch, h)
    if not has_gradient(energy.apply, 2, theta, batch, h):
        raise ModelError(
            f"energy_fn={energy.name} has no gradient with respect to h: the posterior would have nothing to "
            "fit. Train it by ScoreMatching, which needs no latents."
        )


def check_moving_latents(posterior: Model, phi: Params, batch: Float[Array, "batch *visible"]) -> None:
    """Checks that the samples of a posterior move with v where its log-probability does.

    Raises:
        ModelError: where they do not, so that the Jacobian of the score would lack a term.
    """
    sample = lambda v: _sample(posterior, phi, v).h  # noqa: E731
    log_prob = lambda v, h: posterior.apply(phi, v).log_prob(h)  # noqa: E731

    def second_derivative(phi: Params) -> Array:
        draw = lambda v: _sample(posterior, phi, v).h  # noqa: E731
        # In the order of the losses: a derivative by v within, the gradient by phi around it.
        return jax.jvp(draw, (batch,), (jnp.ones_like(batch),))[1].sum()

    try:
        jax.eval_shape(jax.grad(second_derivative), phi)
    except Exception as error:
        raise ModelError(
            f"posterior_fn={posterior.name} draws samples whose derivative by v has none by phi "
            f"({type(error).__name__}: {error}), as those of a Gamma or a Beta. Take DSM(noise_std), which "
            "needs no Jacobian, or a posterior such as Normal or a flow."
        ) from error
    if has_gradient(log_prob, 0, batch, jax.eval_shape(sample, batch)) and not has_gradient(sample, 0, batch):
        raise ModelError(
            f"posterior_fn={posterior.name} draws samples that do not move with v, though their log_prob "
            "depends on v: the Jacobian of the score would lack a term. Sample from the same function of v, "
            "or pass SSM(latents='fixed') and know that it is no bound."
        )


def _sample(posterior: Model, phi: Params, v: Array, seed: int = 0) -> LatentSample:
    distribution = posterior.apply(phi, v)
    noise = draw_latent_noise(jax.random.key(seed), distribution, (1,))
    return sample_latents(distribution, jax.tree.map(lambda leaf: leaf[0], noise))


def check_free_energy(energy: Model, theta: Params, batch: Float[Array, "batch *visible"]) -> None:
    """Checks a free energy F(theta, v) on a batch; raises as `check_latent_model`."""
    _check_energy(energy, theta, batch)


def check_joint_energy(
    energy: Model, theta: Params, batch: Float[Array, "batch *visible"], h: Float[Array, "batch *latent"]
) -> None:
    """Checks an energy E(theta, v, h) on a batch with latents; raises as `check_latent_model`."""
    _check_energy(energy, theta, batch, h)


def check_conditionals(
    energy: Model, sample_h: Callable[..., Any], sample_v: Callable[..., Any], theta: Params, batch: Array
) -> None:
    """Checks the conditional samplers of a model on a batch.

    Raises:
        ModelError: where either cannot be called, or does not return one sample a row of the right shape.
    """
    key, name = jax.random.key(0), f"energy_fn={energy.name}"
    h = _trace(f"{name}: sample_h", sample_h, theta, key, batch)
    if getattr(h, "shape", ())[:1] != batch.shape[:1]:
        raise ModelError(
            f"{name}: sample_h returns {_describe(h)} for a batch of {batch.shape[0]} rows; it must return "
            "one h a row."
        )
    v = _trace(f"{name}: sample_v", sample_v, theta, key, h)
    if getattr(v, "shape", None) != batch.shape:
        raise ModelError(
            f"{name}: sample_v returns {_describe(v)}; it must return one v a row, of the data's shape "
            f"{batch.shape}."
        )


def _check_energy(energy: Model, theta: Params, *args: Array) -> None:
    name = f"energy_fn={energy.name}"
    result = _trace(name, energy.apply, theta, *args)
    _check_row_values(name, "one energy a row", result, args[0].shape[0])
    # On the trace, since a gradient by values may be zero at the initial parameters alone.
    if not has_gradient(energy.apply, 0, theta, *args):
        raise ModelError(
            f"{name} has no gradient with respect to theta: its parameters are closed over, not taken from "
            "its first argument."
        )
    if not has_gradient(energy.apply, 1, theta, *args):
        raise ModelError(f"{name} has no gradient with respect to v, so it has no score to match.")
    if not is_traced(theta, args):  # under a transformation there are no values to look at
        probe = functools.partial(_probe_rows, energy.apply)
        # One program: an operation at a time, checks and initialisation make it 47 for a first `fit`, not 6.
        _check_rows(name, *jax.device_get(_call(name, call_compiled, probe, theta, *args)))


def _check_factors(energy: Model, theta: Params, v: Array, h: Array) -> None:
    """`features` and `head`, where the energy has both, must give the energy itself."""
    if not is_factored(energy) or is_traced(theta, v, h):
        return
    name = f"energy_fn={energy.name}"

    def both(theta: Params, v: Array, h: Array) -> tuple[Array, Array]:
        args = (theta, _probe(v), _probe(h))
        return factor(energy)(*args), energy.apply(*args)

    both_values = _call(f"{name}: head(v, features(v), h)", call_compiled, both, theta, v, h)
    factors, values = jax.device_get(both_values)
    if not _agree(factors, values):
        raise ModelError(
            f"{name} has methods features and head, but head(v, features(v), h) is not its value at (v, h), "
            f"by up to {np.abs(factors - values).max():.3g}: training would use the former and all else "
            "the latter. Make the energy call both, or rename one."
        )


def _check_posterior(posterior: Model, phi: Params, batch: Array) -> Array:
    """Gives a draw of h."""
    name, batch_size = f"posterior_fn={posterior.name}", batch.shape[0]
    _check_distribution(name, posterior, phi, batch)
    _check_samples(name, posterior, phi, batch)
    if is_traced(phi, batch):
        return _sample(posterior, phi, batch).h

    def draw_and_probe(phi: Params, v: Array) -> tuple[Any, ...]:
        h = _sample(posterior, phi, v).h
        equal_rows = jnp.broadcast_to(v[:1], (_PROBE_ROWS, *v.shape[1:]))
        draws = tuple(_sample(posterior, phi, equal_rows, seed).h for seed in (0, 1))
        return h, draws, _probe_rows(lambda phi, v, h: posterior.apply(phi, v).log_prob(h), phi, v, h)

    h, draws, probed = _call(name, call_compiled, draw_and_probe, phi, batch)
    _check_rows(name, *jax.device_get(probed))
    if batch_size > 1:
        _check_noise(name, *jax.device_get(draws))
    return h


def _check_distribution(name: str, posterior: Model, phi: Params, batch: Array) -> None:
    """What the posterior returns must have the methods and the batch shape of a distribution."""
    batch_size = batch.shape[0]
    kind, missing, batch_shape = _outline(name, posterior, phi, batch)
    if missing:
        raise ModelError(
            f"{name} returns {kind}, which lacks {missing[0]}(); return a numpyro distribution, or anything "
            "with sample(key, sample_shape) and log_prob(h)."
        )
    if batch_shape != (batch_size,):
        raise ModelError(
            f"{name} has batch shape {batch_shape} on a batch of {batch_size} rows; it must be "
            f"({batch_size},): call it on the whole batch rather than by vmap, and make the latent axes "
            "event axes with .to_event(k)."
        )


def _check_samples(name: str, posterior: Model, phi: Params, batch: Array) -> None:
    """Samples must be one a row and have a gradient in phi, log-probabilities one a row."""
    batch_size = batch.shape[0]
    draw = lambda phi: _sample(posterior, phi, batch).h  # noqa: E731
    shape = _trace(name, draw, phi)
    if getattr(shape, "shape", ())[:1] != (batch_size,):
        raise ModelError(
            f"{name} draws samples of {_describe(shape)} for a batch of {batch_size} rows; their first "
            f"axis must be {batch_size}."
        )
    # On the trace: a distribution of a user's need not have `has_rsample`, nor keep to it.
    if not jnp.issubdtype(shape.dtype, jnp.floating) or not has_gradient(draw, 0, phi):
        raise ModelError(
            f"{name} draws samples that are not reparameterised: they have no gradient with respect to "
            "phi, so the lower level could not be differentiated through. Use a relaxation "
            "(BernoulliPosterior) or a distribution with pathwise samples, such as Normal."
        )

    def log_prob(v: Array, h: Array) -> Array:
        return latent_log_prob(posterior.apply(phi, v), _sample(posterior, phi, v)._replace(h=h))

    values = _trace(name, log_prob, batch, shape)
    _check_row_values(name, "one log_prob a row", values, batch_size)


def _outline(
    name: str, posterior: Model, phi: Params, batch: Array
) -> tuple[str, list[str], tuple[int, ...]]:
    """The type of the distribution, what it lacks, and its batch shape: nothing that is traced."""
    # A traced function returns arrays alone; a type and its attributes leave by this list.
    outlines: list[tuple[str, list[str], tuple[int, ...]]] = []

    def outline(phi: Params, v: Array) -> None:
        found = posterior.apply(phi, v)
        missing = [attribute for attribute in ("sample", "log_prob") if not hasattr(found, attribute)]
        batch_shape = getattr(found, "batch_shape", batch.shape[:1])  # which a user's own may lack
        outlines.append((type(found).__name__, missing, batch_shape))

    _trace(name, outline, phi, batch)
    return outlines[0]


def _trace(name: str, fn: Callable[..., Any], *args: Any) -> Any:
    """The shape of what `fn` returns."""
    return _call(name, jax.eval_shape, fn, *args)


def _call(name: str, fn: Callable[..., Any], *args: Any) -> Any:
    try:
        return fn(*args)
    except ModelError:  # has named its argument already
        raise
    except Exception as error:
        shapes = [str(arg.shape) for arg in args if hasattr(arg, "shape")]
        batch = f"arrays of shapes {' and '.join(shapes)}" if shapes else "a batch"
        raise ModelError(
            f"{name} cannot be evaluated on its parameters and {batch}: {type(error).__name__}: "
            f"{str(error).rstrip('.')}. Pass data of its shape; where init_params are given, they must be "
            "(theta, phi) of this model, in this order."
        ) from error


def _check_row_values(name: str, what: str, result: Any, batch_size: int) -> None:
    if getattr(result, "shape", None) != (batch_size,):
        raise ModelError(
            f"{name} returns {_describe(result)} on a batch of {batch_size} rows; it must return {what}, "
            f"shape ({batch_size},). Sum over all axes but the first."
        )
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise ModelError(f"{name} returns dtype {result.dtype}; it must be floating, to have a gradient.")


def _describe(result: Any) -> str:
    return f"shape {result.shape}" if hasattr(result, "shape") else f"a {type(result).__name__}"


def _probe_rows(fn: Callable[..., Array], params: Params, *args: Array) -> tuple[Any, ...]:
    """The values of a few rows, those in reverse order, that of the first row alone and its gradients."""
    rows = tuple(_probe(arg) for arg in args)
    floating = {index: row for index, row in enumerate(rows) if is_inexact(row)}

    def first_value(floating: dict[int, Array]) -> Array:
        return fn(params, *(floating.get(index, row) for index, row in enumerate(rows)))[0]

    # The first row alone is a batch of copies: a batch of one is another shape, which may round otherwise.
    orders = [jnp.stack((row, row[::-1], jnp.broadcast_to(row[:1], row.shape))) for row in rows]
    # A loop, so that the three are rounded alike: XLA fuses three calls as it likes, which bfloat16 shows.
    values, in_reverse, alone = jax.lax.map(lambda rows: fn(params, *rows), orders)
    return values, in_reverse[::-1], alone[0], jax.grad(first_value)(floating)


def _check_rows(
    name: str, values: np.ndarray, in_reverse: np.ndarray, alone: np.ndarray, gradients: dict[int, np.ndarray]
) -> None:
    """A row's value must not change with the order of the rows, nor have a gradient in the others."""
    # `> 0` and not `!= 0`, by which a NaN would be a dependence on other rows.
    is_mixed = any(np.any(np.abs(leaf[1:]) > 0) for leaf in gradients.values())
    if is_mixed or not _agree(values, in_reverse) or not _agree(values[0], alone):
        raise ModelError(
            f"{name} gives a row a value that depends on the other rows of the batch or on their order, so "
            "the gradient of their sum would not be a score. Remove what mixes rows (batch normalisation, a "
            "mean over the batch, an index by position)."
        )


def _agree(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal but for rounding."""
    # 1e-4 in float32, beyond what another order of a sum changes.
    tolerance = 1e3 * float(jnp.finfo(found.dtype).eps)
    # NumPy, since every operation of JAX here would be a program of its own.
    return np.allclose(found, expected, tolerance, tolerance, equal_nan=True)


def _check_noise(name: str, h: np.ndarray, other: np.ndarray) -> None:
    """Equal rows must not draw equal latents, unless the posterior is so sure that every draw is equal."""
    if np.all(h == h[:1]) and not np.all(h == other):
        raise ModelError(
            f"{name} draws the same noise for every row of a batch; draw it for the whole batch, shape "
            "[*sample_shape, B, *latent]."
        )


def _probe(array: Array) -> Array:
    """A few rows, moved apart, since rows that happen to be equal would hide a dependence."""
    rows = jnp.resize(array[:_PROBE_ROWS], (_PROBE_ROWS, *array.shape[1:]))
    offsets = jnp.linspace(0.0, 0.1, _PROBE_ROWS).reshape(-1, *(1,) * (array.ndim - 1))
    return rows + offsets.astype(rows.dtype)
