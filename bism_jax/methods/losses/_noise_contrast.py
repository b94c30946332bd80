"""What noise-contrastive methods share: the noise, and the logistic loss against it."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._tracing.jax_internals import is_traced
from bism_jax.methods._common.shards import BatchShard
from bism_jax.typing import Posterior


def noise_for(distribution: Any, batch: Float[Array, "batch *visible"]) -> Any:
    """The noise distribution: as given, or standard normal of the data's shape."""
    if distribution is not None:
        return distribution
    # Here: with SciPy, numpyro takes 0.33 CPU seconds to import.
    import numpyro.distributions as dist

    shape = batch.shape[1:]
    return dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape))


def draw_noise_points(
    distribution: Any, rng_key: Key[Array, ""], batch: Array, noise_ratio: int, shard: BatchShard
) -> Float[Array, "ratio batch *visible"]:
    """Nu noise points for each row of the batch."""
    num_rows = shard.global_batch(batch).shape[0]
    if distribution is None:
        # Not by numpyro, which with x64 draws in float64, hence other numbers for float32 data.
        noise = jax.random.normal(rng_key, (noise_ratio, num_rows, *batch.shape[1:]), batch.dtype)
    else:
        noise = distribution.sample(rng_key, (noise_ratio, num_rows)).astype(batch.dtype)
    return shard.rows(noise, 1, batch.shape[0])


def logistic_loss(
    data_log_ratio: Float[Array, " batch"], noise_log_ratio: Float[Array, "ratio batch"]
) -> Float[Array, ""]:
    """Of telling data from nu times as much noise by the log ratio G = log p(v) - log p_noise(v):

    mean_data softplus(log nu - G) + nu mean_noise softplus(G - log nu)
    """
    noise_ratio = noise_log_ratio.shape[0]
    offset = math.log(noise_ratio)
    # Not log(sigmoid), which is -inf where the sigmoid rounds to 0.
    on_data = jax.nn.softplus(offset - data_log_ratio).mean()
    return on_data + noise_ratio * jax.nn.softplus(noise_log_ratio - offset).mean()


def check_distribution(distribution: Any) -> None:
    """Raises TypeError unless it is None or has `sample` and `log_prob`."""
    if distribution is not None:
        checks.instance("noise", distribution, Posterior, "dist.Normal(0.0, 2.0).expand((2,)).to_event(1)")


def check_noise(distribution: Any, batch: Float[Array, "batch *visible"]) -> None:
    """Raises ValueError unless the noise is drawn in the data's shape and has one log_prob a row."""
    noise = noise_for(distribution, batch)
    if getattr(getattr(noise, "support", None), "is_discrete", False):
        raise ValueError(
            f"noise={type(noise).__name__} is discrete, but the data is continuous: a density is told from a "
            "density. Take dist.Normal(0.0, 2.0).expand((2,)).to_event(1), or None for the standard normal."
        )
    v = jax.eval_shape(lambda key: noise.sample(key, (batch.shape[0],)), jax.random.key(0))
    if v.shape != batch.shape or jax.eval_shape(noise.log_prob, batch).shape != batch.shape[:1]:
        raise ValueError(
            f"noise draws {v.shape} for a batch of {batch.shape}, or has not one log_prob a row; it must be "
            f"a distribution over one data point: batch shape (), event shape {batch.shape[1:]} (numpyro: "
            ".to_event(k))."
        )
    if not jnp.issubdtype(v.dtype, jnp.floating):
        raise ValueError(
            f"noise draws dtype {v.dtype}, but the data is {batch.dtype}: a density is told from a density. "
            "Take a continuous distribution, or None for the standard normal."
        )
    # Last, as it alone evaluates something: the others read shapes and dtypes.
    _check_covers(noise, batch)


def _check_covers(noise: Any, batch: Float[Array, "batch *visible"]) -> None:
    """Raises ValueError where data lies off the support, on which its density is taken by numpyro for any."""
    support = getattr(noise, "support", None)
    if not callable(support) or is_traced(batch):
        return
    inside = np.asarray(support(batch)).reshape(len(batch), -1).all(axis=1)
    if not inside.all():
        raise ValueError(
            f"noise={type(noise).__name__} has no density at {int((~inside).sum())} of {len(batch)} rows of "
            "the batch; take one whose support holds all of the data, such as a Normal."
        )
