"""A conditional coupling flow of the library flowjax as a pure function of its parameters."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bism_jax.typing import Params

_MIN_SCALE = 0.01  # bounds what a layer's inverse can blow up to a hundredfold


def require_flowjax() -> None:
    """Raises ImportError, with what to install, unless flowjax can be imported."""
    try:
        import flowjax.bijections  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"FlowPosterior needs flowjax, which cannot be imported ({error}); install it with: "
            "pip install 'bism-jax[flows]'"
        ) from error


@dataclass(frozen=True)
class CouplingFlow:
    """A bijection of R^num_hidden, conditioned on a context in R^context.

    Each layer splits its input into halves and maps one given the other and the context c,

        (a, b) -> (a, b * (softplus(s) + 0.01) + t),   (s, t) = perceptron(a, c),

    then reverses the order of the latents, so that the halves change places; after every second layer the
    order is also shifted by a quarter, so that other latents share a half. (Dinh, Sohl-Dickstein and Bengio,
    ICLR 2017, arXiv 1605.08803.) The layers are affine, with smooth perceptrons, so that log q is smooth:
    the score differentiates it in v and the hypergradient does so again; that of splines has kinks.

    Attributes:
        num_hidden: the number of latents, at least 2.
        context: the length of the context.
        num_layers: the number of layers.
        width: the width of the hidden layer of each perceptron.
    """

    num_hidden: int
    context: int
    num_layers: int
    width: int

    def init(self, rng_key: Key[Array, ""], dtype: Any) -> Params:
        """The perceptrons' weights by name, each with a leading axis of layers, drawn as Flax draws them."""
        arrays = _named_arrays(_conditioners(_structure(self, dtype)))
        keys = jax.random.split(rng_key, len(arrays))
        return {name: _draw(key, leaf.shape, dtype) for key, (name, leaf) in zip(keys, arrays, strict=True)}

    def transform(
        self, params: Params, noise: Float[Array, "*batch latent"], context: Float[Array, "*batch context"]
    ) -> Float[Array, "*batch latent"]:
        """The latents h of the noise."""
        transform = self._bijection(params).transform
        # A bijection of flowjax takes one vector, without axes of particles or rows.
        return jnp.vectorize(transform, signature="(m),(d)->(m)")(noise, context)

    def inverse(
        self, params: Params, h: Float[Array, "*batch latent"], context: Float[Array, "*batch context"]
    ) -> tuple[Float[Array, "*batch latent"], Float[Array, "*batch"]]:
        """The noise of h, and log |det d noise / d h|."""
        inverse = self._bijection(params).inverse_and_log_det
        noise, log_det = jnp.vectorize(inverse, signature="(m),(d)->(m),()")(h, context)
        return noise, log_det.astype(noise.dtype)  # flowjax sums it in JAX's default dtype

    def _bijection(self, params: Params) -> Any:
        import equinox as eqx

        structure = _structure(self, jnp.result_type(*params.values()))
        conditioners = jax.tree_util.tree_map_with_path(
            # Activation functions are leaves too, and stay.
            lambda path, leaf: params[_name(path)] if isinstance(leaf, jax.Array) else leaf,
            _conditioners(structure),
        )
        return eqx.tree_at(_conditioners, structure, conditioners)


# A model is traced many times over, and flowjax builds and initialises each layer anew.
@functools.lru_cache(maxsize=32)
def _structure(flow: CouplingFlow, dtype: Any) -> Any:
    """The flow with weights to be replaced; its other arrays are constants, floating ones of this dtype."""
    import equinox as eqx
    from flowjax.bijections import Affine, Chain, Coupling, Permute, Scan

    def coupling() -> Any:
        return Coupling(
            jax.random.key(0, impl="rbg"),  # compiles faster than the default
            transformer=affine,
            untransformed_dim=flow.num_hidden // 2,
            dim=flow.num_hidden,
            cond_dim=flow.context,
            nn_width=flow.width,
            nn_depth=1,
            nn_activation=jax.nn.silu,
        )

    with _unchecked(dtype):
        affine = eqx.tree_at(lambda affine: affine.scale, Affine(), _scale())
        permutations = eqx.filter_vmap(Permute)(_orders(flow))
    with jax.ensure_compile_time_eval(), _in_dtype(dtype):
        couplings = eqx.filter_vmap(coupling, axis_size=flow.num_layers)()
    # A scan over layers, so that the time to compile does not grow with them.
    return Scan(Chain([couplings, permutations]))


def _scale() -> Any:
    """The scale of an affine map, 1 where the perceptron is 0, bounded so that the inverse stays finite."""
    from paramax import Parameterize
    from paramax.utils import inv_softplus

    return Parameterize(lambda s: jax.nn.softplus(s) + _MIN_SCALE, inv_softplus(1 - _MIN_SCALE))


def _in_dtype(dtype: Any) -> contextlib.AbstractContextManager[None]:
    """What flowjax builds is in JAX's default dtype, in part out of reach in closures."""
    return jax.enable_x64(bool(dtype == jnp.float64))


@contextlib.contextmanager
def _unchecked(dtype: Any) -> Iterator[None]:
    """Builds constants of flowjax at once, also in a trace.

    flowjax checks their values in a compiled function, by a callback, which `ensure_compile_time_eval`
    would run although nothing is wrong with them.
    """
    with jax.ensure_compile_time_eval(), jax.disable_jit(), _in_dtype(dtype):
        yield


def _orders(flow: CouplingFlow) -> Array:
    """The order of the latents after each layer, `[layers, latent]`."""
    reversed_order = np.arange(flow.num_hidden)[::-1]
    shifts = [(layer % 2) * ((flow.num_hidden + 1) // 4) for layer in range(flow.num_layers)]
    return jnp.stack([np.roll(reversed_order, shift) for shift in shifts])


def _conditioners(structure: Any) -> Any:
    # The perceptrons alone: permutations and the affine map's own arrays are no parameters.
    return structure.bijection[0].conditioner


def _named_arrays(tree: Any) -> list[tuple[str, Array]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(_name(path), leaf) for path, leaf in leaves if isinstance(leaf, jax.Array)]


def _draw(key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> Array:
    """A kernel `[layers, outputs, inputs]`, or biases `[layers, outputs]` of zero."""
    # Without `batch_axis` the layers would count as inputs and shrink every kernel.
    kernel_init = jax.nn.initializers.lecun_normal(in_axis=-1, out_axis=-2, batch_axis=0)
    return kernel_init(key, shape, dtype) if len(shape) == 3 else jnp.zeros(shape, dtype)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="_")
