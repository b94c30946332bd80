"""A normalising-flow posterior for continuous latents."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from flax import linen as nn
from jaxtyping import Array, Float, Key
from numpyro.distributions import constraints

from bism_jax import checks
from bism_jax._precision import working_dtype
from bism_jax.models.networks._mlp import MLP
from bism_jax.models.posteriors._coupling_flow import CouplingFlow, require_flowjax
from bism_jax.typing import Params


class ConditionalFlow(dist.Distribution):
    """The density of h = f(noise; c) for standard normal noise, an invertible f and a context c.

        log q(h | v) = log N(f^-1(h; c); 0, I) + log |det d f^-1(h; c) / dh|

    It has no mean in closed form.

    Args:
        flow: f.
        params: its parameters.
        context: c of each row, `[B, context]`.
    """

    support = constraints.real_vector
    reparametrized_params = ["params", "context"]  # noqa: RUF012 (numpyro reads a list)
    pytree_data_fields = ("params", "context")
    pytree_aux_fields = ("flow",)

    def __init__(
        self,
        flow: CouplingFlow,
        params: Params,
        context: Float[Array, "batch context"],
        *,
        # numpyro's default, True, adds a comparison, a reduction and a selection to every log-probability.
        validate_args: bool | None = False,
    ) -> None:
        checks.array("context", context, "[batch, context]")
        if not isinstance(flow, CouplingFlow):
            raise TypeError(f"flow must be the CouplingFlow of a FlowPosterior, not {flow!r}.")
        self.flow, self.params, self.context = flow, params, context
        super().__init__(context.shape[:-1], (flow.num_hidden,), validate_args=validate_args)

    def draw_noise(
        self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample batch latent"]:
        """Standard normal noise."""
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        return jax.random.normal(key, shape, self.context.dtype)

    def transform(self, noise: Array) -> tuple[Array, None]:
        """The sample f(noise; c); no intermediates."""
        return self.flow.transform(self.params, noise, self.context), None

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """h, `[*sample_shape, B, latent]`."""
        return self.transform(self.draw_noise(key, sample_shape))[0]

    def log_prob(self, value: Array) -> Array:
        """The log-probability log q(h | v), of which h held fixed leaves the context a function of v."""
        # Latents of another posterior or of NumPy may be wider, which would widen the parameters' products.
        h = jnp.asarray(value, self.context.dtype)
        noise, log_det = self.flow.inverse(self.params, h, self.context)
        return jax.scipy.stats.norm.logpdf(noise).sum(axis=-1) + log_det


class FlowPosterior(nn.Module):
    """q(h | v) of a conditional coupling flow: correlated, skewed or with several modes.

        h = f(noise; c(v)),   noise ~ N(0, I)

    c is an encoder and f a `CouplingFlow`. Samples and log q at a given h cost one pass each. It needs
    flowjax: `pip install 'bism-jax[flows]'`.

    Attributes:
        num_hidden: the number of latents, at least 2.
        encoder: a Linen module from `[B, *visible]` to `[B, context]`; None is a perceptron of v, flattened,
            with one hidden layer.
        num_layers: the number of coupling layers, at least 2: one layer leaves half of the latents as they
            are.
        width: the width of the hidden layer of each layer's perceptron, and of the default encoder and its
            output.

    Raises:
        ImportError: without flowjax.
        TypeError: where the encoder is no Linen module.
        ValueError: on counts below their range, and for an encoder that returns another shape.
    """

    num_hidden: int
    encoder: nn.Module | None = None
    num_layers: int = 4
    width: int = 64

    def __post_init__(self) -> None:
        checks.positive_int("num_hidden", self.num_hidden)
        if self.num_hidden < 2:
            raise ValueError(
                "num_hidden=1: a coupling flow transforms some latents given others, so it needs at least 2; "
                "use GaussianPosterior(1)."
            )
        checks.positive_int("num_layers", self.num_layers)
        if self.num_layers < 2:
            raise ValueError(
                "num_layers=1 would leave half of the latents standard normal whatever v is; take at least 2."
            )
        checks.positive_int("width", self.width)
        if self.encoder is not None and not isinstance(self.encoder, nn.Module):
            raise TypeError(
                f"encoder must be a Flax Linen module such as ConvEncoder(), or None, not {self.encoder!r}."
            )
        # When the posterior is made rather than in the first trace.
        require_flowjax()
        super().__post_init__()

    @nn.compact
    def __call__(self, v: Float[Array, "batch *visible"]) -> ConditionalFlow:
        """The posterior of each row, with batch shape `(B,)` and event shape `(num_hidden,)`."""
        context = self._context(v)
        flow = CouplingFlow(self.num_hidden, context.shape[-1], self.num_layers, self.width)
        return ConditionalFlow(flow, self.param("flow", flow.init, context.dtype), context)

    def _context(self, v: Float[Array, "batch *visible"]) -> Float[Array, "batch context"]:
        if self.encoder is None:
            return MLP((self.width,), self.width, jax.nn.silu)(v.reshape(v.shape[0], -1))
        context = self.encoder(v)
        if getattr(context, "ndim", None) != 2 or context.shape[0] != v.shape[0]:
            returned = getattr(context, "shape", type(context).__name__)
            raise ValueError(
                f"encoder returns {returned} for v of shape {v.shape}; it must return [batch, context]: "
                "flatten its output."
            )
        # An encoder may compute in bfloat16, whose 8 bits a log-determinant does not survive.
        return context.astype(working_dtype(v.dtype))
