"""The Gaussian-Bernoulli restricted Boltzmann machine."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from flax import linen as nn
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._precision import working_dtype
from bism_jax.models.energies._visible import count_visible
from bism_jax.typing import Params

_MAX_ENUMERATED = 20  # hidden units, so a million states
_STATES_A_BLOCK = 4096  # so that memory does not grow with their number


class GRBM(nn.Module):
    """Visible v in R^d, hidden h in {0, 1}^m, of which the energy accepts the relaxation to [0, 1]^m.

        E(v, h) = 1/2 sum_i (v_i - b_i)^2 exp(-2 s_i) - c^T h - v^T W h

    Parameters: `W` [d, m], `b` [d], `c` [m] and `log_std` s [d]; s starts at 0, the rest uniform on
    +-1/sqrt(m). Everything marginal or conditional is in closed form. (Bao et al., NeurIPS 2020, arXiv
    2010.07856, sec. 5.1.) Functions beside the energy are methods:
    `GRBM(4).apply(theta, v, method="free_energy")`.

    Attributes:
        num_hidden: m.
    """

    num_hidden: int

    def __post_init__(self) -> None:
        checks.positive_int("num_hidden", self.num_hidden)
        super().__post_init__()

    def __call__(
        self, v: Float[Array, "batch visible"], h: Float[Array, "batch hidden"]
    ) -> Float[Array, " batch"]:
        """E(v, h), `[B]`."""
        # v^T W does not depend on h, so XLA takes it out of a lower-level loop by itself: a factored form
        # gains nothing (307 against 304 ms at N = 20).
        hidden_field = self._hidden_field(v)
        return self._quadratic(v) - (h * hidden_field).sum(axis=-1)

    def free_energy(self, v: Float[Array, "batch visible"]) -> Float[Array, " batch"]:
        """F(v) = -log sum_h exp(-E(v, h)) = 1/2 sum_i (...) - sum_j softplus(c_j + (v^T W)_j), `[B]`."""
        # softplus(x) = log(1 + e^x), of which JAX's neither overflows nor loses small e^x.
        return self._quadratic(v) - jax.nn.softplus(self._hidden_field(v)).sum(axis=-1)

    def posterior(self, v: Float[Array, "batch visible"]) -> dist.Distribution:
        """The exact p(h | v): p(h_j = 1 | v) = sigmoid(c_j + (v^T W)_j)."""
        return dist.BernoulliLogits(self._hidden_field(v)).to_event(1)

    def sample_h(
        self, rng_key: Key[Array, ""], v: Float[Array, "batch visible"]
    ) -> Float[Array, "batch hidden"]:
        """Draws h ~ p(h | v)."""
        # In the dtype of v: strict promotion refuses a product of booleans and floats.
        return jax.random.bernoulli(rng_key, jax.nn.sigmoid(self._hidden_field(v))).astype(v.dtype)

    def sample_v(
        self, rng_key: Key[Array, ""], h: Float[Array, "batch hidden"]
    ) -> Float[Array, "batch visible"]:
        """Draws v ~ p(v | h) = N(b + e^{2s} W h, e^{2s})."""
        log_std = self._parameter("log_std")
        noise = jax.random.normal(rng_key, (h.shape[0], log_std.shape[0]), h.dtype)
        return self.mean_v(h) + jnp.exp(log_std)[None] * noise

    def mean_v(self, h: Float[Array, "batch hidden"]) -> Float[Array, "batch visible"]:
        """E[v | h] = b + e^{2s} W h."""
        variance = jnp.exp(2 * self._parameter("log_std"))
        return self._parameter("b")[None] + variance[None] * (h @ self._parameter("W").T)

    def log_partition(self) -> Float[Array, ""]:
        """The log partition function, exactly.

            log Z = sum_i s_i + d/2 log 2 pi + LSE_h [c^T h + b^T W h + 1/2 sum_i e^{2 s_i} (W h)_i^2]

        Enumerates the 2^m hidden states.

        Raises:
            ValueError: for more than 20 hidden units.
        """
        if self.num_hidden > _MAX_ENUMERATED:
            raise ValueError(
                f"log_partition enumerates 2^num_hidden states: num_hidden={self.num_hidden} exceeds "
                f"{_MAX_ENUMERATED}. Estimate it by annealed importance sampling instead."
            )
        names = ("W", "b", "c", "log_std")
        weights, b, c, log_std = (self._parameter(name) for name in names)
        # e^s into W, so that the quadratic form is one product and its square.
        scaled = weights * jnp.exp(log_std)[:, None]

        def log_weight(states: Array) -> Array:
            # From their numbers, a block at a time: the 2^20 states of 20 units are 80 MiB in float32.
            bits = (states[:, None] >> jnp.arange(self.num_hidden)[None]) & 1
            h = bits.astype(weights.dtype)
            return h @ (c + b @ weights) + 0.5 * ((h @ scaled.T) ** 2).sum(axis=-1)

        # Both sizes are powers of two, so that the blocks come out even.
        states = jnp.arange(2**self.num_hidden).reshape(-1, min(2**self.num_hidden, _STATES_A_BLOCK))
        # The log-sum-exp of the blocks' own is that of all.
        blocks = jax.lax.map(lambda block: jax.nn.logsumexp(log_weight(block)), states)
        return log_std.sum() + 0.5 * b.size * math.log(2 * math.pi) + jax.nn.logsumexp(blocks)

    def annealed(self, beta: Float[Array, ""]) -> Params:
        """Parameters on the path of annealed importance sampling: W and c are scaled by beta in [0, 1]."""
        params = self.variables["params"]
        # In their dtype, which a beta of float64 would widen.
        scaled = {name: jnp.asarray(beta, params[name].dtype) * params[name] for name in ("W", "c")}
        return {"params": {**params, **scaled}}

    def base_log_partition(self) -> Float[Array, ""]:
        """The log partition function where beta = 0, sum_i s_i + d/2 log 2 pi + m log 2."""
        log_std = self._parameter("log_std")
        return log_std.sum() + 0.5 * log_std.size * math.log(2 * math.pi) + self.num_hidden * math.log(2)

    def sample_base(self, rng_key: Key[Array, ""], num_samples: int) -> Float[Array, "samples visible"]:
        """Draws v of the model where beta = 0, v ~ N(b, e^{2s})."""
        b, log_std = self._parameter("b"), self._parameter("log_std")
        noise = jax.random.normal(rng_key, (num_samples, b.shape[0]), b.dtype)
        return b[None] + jnp.exp(log_std)[None] * noise

    # Linen allows one compact method a class, and the energy and its marginals share these parameters.
    @nn.compact
    def _parameters(self, v: Float[Array, "batch visible"]) -> dict[str, Array]:
        num_visible, dtype = count_visible("GRBM", v), working_dtype(v.dtype)
        limit = 1 / math.sqrt(self.num_hidden)

        def uniform(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, shape, dtype, -limit, limit)

        return {
            "W": self.param("W", uniform, (num_visible, self.num_hidden)),
            "b": self.param("b", uniform, (num_visible,)),
            "c": self.param("c", uniform, (self.num_hidden,)),
            "log_std": self.param("log_std", nn.initializers.zeros, (num_visible,), dtype),
        }

    def _parameter(self, name: str) -> Any:
        # Functions of h alone have no v, whose length `param` would need.
        return self.get_variable("params", name)

    def _quadratic(self, v: Float[Array, "batch visible"]) -> Float[Array, " batch"]:
        params = self._parameters(v)
        return 0.5 * ((v - params["b"][None]) ** 2 * jnp.exp(-2 * params["log_std"])[None]).sum(axis=-1)

    def _hidden_field(self, v: Float[Array, "batch visible"]) -> Float[Array, "batch hidden"]:
        params = self._parameters(v)
        return params["c"][None] + v @ params["W"]
