"""The linear-Gaussian EBLVM: probabilistic principal component analysis."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from flax import linen as nn
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._precision import working_dtype
from bism_jax.checks import as_numbers, finite_rows, not_empty
from bism_jax.models.energies._visible import count_visible
from bism_jax.typing import Params


class LinearGaussian(nn.Module):
    """Visible v in R^d, latent h in R^m, jointly Gaussian:

        E(v, h) = 1/2 |h|^2 + 1/2 |v - b - W h|^2 exp(-2 s)

    so that v ~ N(b, W W^T + e^{2s} I). Parameters: `W` [d, m], `b` [d] and the scalar `log_std` s; W starts
    uniform on +-1/sqrt(m), b and s at 0. Everything marginal or conditional is in closed form, and so is the
    maximum-likelihood fit, `maximum_likelihood`. W is determined up to a rotation of h. (Tipping and Bishop,
    J. R. Statist. Soc. B 1999.) Functions beside the energy are methods:
    `LinearGaussian(2).apply(theta, v, method="free_energy")`.

    Attributes:
        num_latent: m.
    """

    num_latent: int

    def __post_init__(self) -> None:
        checks.positive_int("num_latent", self.num_latent)
        super().__post_init__()

    def __call__(
        self, v: Float[Array, "batch visible"], h: Float[Array, "batch latent"]
    ) -> Float[Array, " batch"]:
        """E(v, h), `[B]`."""
        params = self._parameters(v)
        # Not expanded: the square of the residual is a small difference of the squares it would be made of.
        residual = v - params["b"][None] - h @ params["W"].T
        return 0.5 * (h**2).sum(axis=-1) + 0.5 * (residual**2).sum(axis=-1) * jnp.exp(-2 * params["log_std"])

    def free_energy(self, v: Float[Array, "batch visible"]) -> Float[Array, " batch"]:
        """F(v) = -log of the integral of exp(-E(v, h)) over h, `[B]`.

        F(v) = E(v, mu(v)) + 1/2 log det P - m/2 log 2 pi,   p(h | v) = N(mu(v), P^-1)
        """
        mean, precision = self._posterior_moments(v)
        # A determinant of many latents leaves the range of floats, its logarithm does not.
        log_det = jnp.linalg.slogdet(precision)[1]
        # A quadratic energy is E(v, mu) plus a form in h - mu, which integrates to the determinant.
        return self(v, mean) + 0.5 * log_det - 0.5 * self.num_latent * math.log(2 * math.pi)

    def posterior(self, v: Float[Array, "batch visible"]) -> dist.Distribution:
        """The exact p(h | v) = N(P^-1 W^T (v - b) e^{-2s}, P^-1), P = I + W^T W e^{-2s}."""
        mean, precision = self._posterior_moments(v)
        return dist.MultivariateNormal(mean, precision_matrix=precision, validate_args=False)

    def sample_h(
        self, rng_key: Key[Array, ""], v: Float[Array, "batch visible"]
    ) -> Float[Array, "batch latent"]:
        """Draws h ~ p(h | v)."""
        mean, precision = self._posterior_moments(v)
        # numpyro would draw in float64 wherever JAX is set to it.
        noise = jax.random.normal(rng_key, mean.shape, mean.dtype)
        # P = L L^T, so L^-T noise has the covariance P^-1, which is never formed.
        return mean + jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(precision).T, noise.T).T

    def sample_v(
        self, rng_key: Key[Array, ""], h: Float[Array, "batch latent"]
    ) -> Float[Array, "batch visible"]:
        """Draws v ~ p(v | h) = N(b + W h, e^{2s} I)."""
        mean = self._parameter("b")[None] + h @ self._parameter("W").T
        return mean + jnp.exp(self._parameter("log_std")) * jax.random.normal(rng_key, mean.shape, mean.dtype)

    def log_partition(self) -> Float[Array, ""]:
        """The log partition function, log Z = (d + m)/2 log 2 pi + d s."""
        num_visible = self._parameter("b").size
        normaliser = 0.5 * (num_visible + self.num_latent) * math.log(2 * math.pi)
        return normaliser + num_visible * self._parameter("log_std")

    def covariance(self) -> Float[Array, "visible visible"]:
        """Cov[v] = W W^T + e^{2s} I, which no rotation of h changes."""
        weights, log_std = self._parameter("W"), self._parameter("log_std")
        return weights @ weights.T + jnp.exp(2 * log_std) * jnp.eye(weights.shape[0], dtype=weights.dtype)

    # The one compact method that Linen allows a class: the energy and all conditionals share it.
    @nn.compact
    def _parameters(self, v: Float[Array, "batch visible"]) -> dict[str, Array]:
        num_visible, dtype = count_visible("LinearGaussian", v), working_dtype(v.dtype)
        limit = 1 / math.sqrt(self.num_latent)

        def uniform(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, shape, dtype, -limit, limit)

        return {
            "W": self.param("W", uniform, (num_visible, self.num_latent)),
            "b": self.param("b", nn.initializers.zeros, (num_visible,), dtype),
            "log_std": self.param("log_std", nn.initializers.zeros, (), dtype),
        }

    def _parameter(self, name: str) -> Any:
        return self.get_variable("params", name)

    def _posterior_moments(
        self, v: Float[Array, "batch visible"]
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "latent latent"]]:
        """The mean mu(v) and the precision P of p(h | v)."""
        params = self._parameters(v)
        scaled = params["W"] * jnp.exp(-2 * params["log_std"])
        # m x m, where the covariance of v would be d x d.
        precision = jnp.eye(self.num_latent, dtype=scaled.dtype) + params["W"].T @ scaled
        return jnp.linalg.solve(precision, scaled.T @ (v - params["b"][None]).T).T, precision


def maximum_likelihood(v: Float[Array | np.ndarray, "rows visible"], num_latent: int) -> Params:
    """The theta of `LinearGaussian(num_latent)` that maximises the likelihood of the rows of v.

        b = mean of v,   e^{2s} = mean_{j > m} lambda_j,   W = U_m (Lambda_m - e^{2s} I)^{1/2}

    lambda_1 >= .. >= lambda_d and U are the eigenvalues and eigenvectors of the sample covariance (over n,
    not n - 1). The exact score-matching objective has the same minimum. (Tipping and Bishop 1999, eq. 7-8.)

    Args:
        v: the data.
        num_latent: m, at least 1 and below the number of visible units.

    Raises:
        ValueError: on v that is no matrix, an m out of range, or data without variance beyond m directions.
    """
    # In float64 whatever JAX is set to: the noise is among the smallest eigenvalues.
    v = np.asarray(as_numbers("v", v, "[rows, visible]"), np.float64)
    not_empty("v", v, "[rows, visible]")
    finite_rows("v", v)
    num_visible = count_visible("LinearGaussian", v)
    checks.positive_int("num_latent", num_latent)
    if num_latent >= num_visible:
        raise ValueError(
            f"num_latent={num_latent} leaves no direction to estimate the noise from: v has {num_visible} "
            f"columns; take num_latent={num_visible - 1} or less."
        )
    mean = v.mean(axis=0)
    values, vectors = np.linalg.eigh((v - mean).T @ (v - mean) / len(v))
    # `eigh` sorts upwards.
    noise = values[:-num_latent].mean()
    # Rounding leaves about 2e-16 d of the largest eigenvalue where there is none, below this to d = 4,500.
    if not noise > 1e-12 * values[-1]:
        raise ValueError(
            f"v has no variance beyond num_latent={num_latent} directions, so the likelihood has no maximum; "
            "take a smaller num_latent, or more rows."
        )
    weights = vectors[:, -num_latent:] * np.sqrt(values[-num_latent:] - noise)
    params = {"W": weights, "b": mean, "log_std": 0.5 * np.log(noise)}
    return {"params": {name: jnp.asarray(value, float) for name, value in params.items()}}
