"""The reconstruction energy against NumPy formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bism_jax.models import ReconstructionEnergy, ReconstructionFreeEnergy, as_model, factor
from tests.numpy_layers import flat, layer, numpy_conv, residual_block, silu

SIZE, CHANNELS, LATENTS = 8, 2, 3


def numpy_reconstruction(params, v):
    """U(v) and its code, with patches gathered pixel by pixel."""

    def conv(name, x):
        kernel, bias = layer(params, f"unet/{name}")
        return numpy_conv(x, kernel) + bias

    def block(index, x, halves=False):
        return residual_block(params, f"unet/ResidualBlock_{index}", x, silu, halves)

    def dense(name, x):
        kernel, bias = layer(params, f"unet/{name}")
        return x @ kernel + bias

    def double(x):
        return np.kron(x, np.ones((1, 2, 2, 1)))

    patches = np.concatenate([v[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=-1)
    fine = block(0, conv("Conv_0", patches))
    middle = block(2, block(1, fine, halves=True))
    coarse = block(4, block(3, middle, halves=True))
    code = dense("Dense_0", coarse.reshape(len(v), -1))
    x = block(5, dense("Dense_1", code).reshape(coarse.shape))
    x = block(6, double(conv("Conv_1", x)) + middle)
    x = block(7, double(conv("Conv_2", x)) + fine)
    x = conv("Conv_3", silu(x))
    image, colours = np.zeros(v.shape), v.shape[-1]
    for i, j in np.ndindex(2, 2):
        image[:, i::2, j::2] = x[..., (2 * i + j) * colours : (2 * i + j + 1) * colours]
    return image, code


def numpy_energy(theta, v, h, noise_std):
    params = flat(theta)
    image, code = numpy_reconstruction(params, v)
    kernel, bias = layer(params, "joint")
    terms = silu(np.concatenate([code, h], axis=1) @ kernel + bias)
    error = ((v - image) ** 2).sum(axis=(1, 2, 3)) / (2 * noise_std**2)
    return error + (h**2).sum(axis=1) / 2 + (terms**2).sum(axis=1)


def parameters(module, *args):
    """Drawn by NumPy, which needs no compilation."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)


def inputs(colours=1, dtype=jnp.float64):
    v_key, h_key = jax.random.split(jax.random.key(0))
    v = jax.random.uniform(v_key, (2, SIZE, SIZE, colours), dtype)
    return v, jax.random.normal(h_key, (2, LATENTS), dtype)


@pytest.mark.parametrize("colours", [1, 3])
def test_the_energy_is_its_formula(x64, colours):
    energy = ReconstructionEnergy(LATENTS, CHANNELS, noise_std=0.3)
    v, h = inputs(colours)
    theta = parameters(energy, v, h)
    found = jax.jit(energy.apply)(theta, v, h)
    np.testing.assert_allclose(found, numpy_energy(theta, np.asarray(v), np.asarray(h), 0.3), 1e-12)


def test_the_factored_form_is_the_energy(x64):
    energy, (v, h) = ReconstructionEnergy(LATENTS, CHANNELS, noise_std=0.3), inputs()
    theta = parameters(energy, v, h)
    found = jax.jit(factor(as_model("energy_fn", energy)))(theta, v, h)
    np.testing.assert_allclose(found, numpy_energy(theta, np.asarray(v), np.asarray(h), 0.3), 1e-12)


def test_the_energy_without_latents_is_the_error_alone(x64):
    energy, (v, _) = ReconstructionFreeEnergy(LATENTS, CHANNELS, noise_std=0.3), inputs()
    theta = parameters(energy, v)
    unet = {f"unet/{path.split('/', 1)[1]}": leaf for path, leaf in flat(theta).items()}
    image, _ = numpy_reconstruction(unet, np.asarray(v))
    expected = ((v - image) ** 2).sum(axis=(1, 2, 3)) / (2 * 0.3**2)
    found = jax.jit(lambda theta, v: energy.apply(theta, v, method="free_energy"))(theta, v)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.slow
def test_bfloat16_is_close_and_sums_in_float32():
    v, h = inputs(dtype=jnp.float32)
    theta = parameters(ReconstructionEnergy(LATENTS, CHANNELS), v, h)

    def gradient(dtype):
        energy = ReconstructionEnergy(LATENTS, CHANNELS, dtype=dtype)
        return jax.jit(jax.grad(lambda v: energy.apply(theta, v, h).sum()))(v)

    exact, found = gradient(None), gradient(jnp.bfloat16)
    assert found.dtype == jnp.float32
    difference = jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)
    assert 1e-5 < difference < 0.05


@pytest.mark.parametrize(
    ("shape", "latent_shape", "match"),
    [
        ((2, 28, 28, 1), (2, 3), r"\(2, 28, 28, 1\).*multiples of 8. Pad"),
        ((2, 8, 8, 1), (2, 4), r"h has shape \(2, 4\), not \(2, 3\).*num_hidden=3"),
    ],
)
def test_wrong_shapes_are_named(shape, latent_shape, match):
    with pytest.raises(ValueError, match=match):
        jax.eval_shape(
            ReconstructionEnergy(3, 2).init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(latent_shape)
        )


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ReconstructionEnergy(num_hidden=0), "num_hidden"),
        (lambda: ReconstructionEnergy(noise_std=0), "noise_std"),
        (lambda: ReconstructionFreeEnergy(num_code=0), "num_code"),
        (lambda: ReconstructionFreeEnergy(channels=1.5), "channels"),
    ],
)
def test_wrong_options_are_named(make, match):
    with pytest.raises((ValueError, TypeError), match=match):
        make()
