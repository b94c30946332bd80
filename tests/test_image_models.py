"""Image energies and posteriors against NumPy formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.hypergradients import bilevel_problem, theta_gradient
from bism_jax import MDSM, BiSM, Fisher, Optimizers, Unrolled
from bism_jax._contract.initialisation import init_module
from bism_jax.methods import paper_adam
from bism_jax.models import (
    ConvDecoder,
    ConvGaussianPosterior,
    ResidualEnergy,
    ResidualFreeEnergy,
    as_model,
    factor,
)
from bism_jax.models.networks._image_layers import largest_singular_value
from tests.numpy_layers import elu, flat, layer, numpy_conv, residual_block

SIZE, CHANNELS, LATENTS = 8, 2, 3


def numpy_energy(params, v, h, num_blocks):
    """The paper's formulas, with the pooling after the convolution."""
    params = flat(params)
    kernel, bias = layer(params, "trunk/Conv_0")
    x = numpy_conv(v, kernel) + bias
    for index in range(num_blocks):
        halves = index % (num_blocks // 3) == 0
        x = residual_block(params, f"trunk/ResidualBlock_{index}", x, elu, halves)
    kernel, bias = layer(params, "trunk/Dense_0")
    f = x.reshape(len(x), -1) @ kernel + bias
    kernel, bias = layer(params, "joint")
    return (elu(np.concatenate([f + h, h], axis=1) @ kernel + bias) ** 2).sum(axis=1)


def images(colours=1, dtype=jnp.float64):
    return jax.random.uniform(jax.random.key(0), (2, SIZE, SIZE, colours), dtype)


def latents(dtype=jnp.float64):
    return jax.random.normal(jax.random.key(1), (2, LATENTS), dtype)


@pytest.mark.parametrize(("num_blocks", "colours"), [(6, 1), pytest.param(9, 3, marks=pytest.mark.slow)])
def test_the_energy_is_the_papers(x64, num_blocks, colours):
    energy = ResidualEnergy(LATENTS, CHANNELS, num_blocks)
    v, h = images(colours), latents()
    theta = jax.jit(energy.init)(jax.random.key(2), v, h)
    found = jax.jit(energy.apply)(theta, v, h)
    np.testing.assert_allclose(found, numpy_energy(theta, np.asarray(v), np.asarray(h), num_blocks), 1e-12)
    factored = factor(as_model("energy_fn", energy))
    np.testing.assert_allclose(jax.jit(factored)(theta, v, h), found, 1e-12)


def test_the_paper_networks_have_their_number_of_parameters():
    def count(module, *args):
        shapes = jax.eval_shape(module.init, jax.random.key(0), *args)
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    v, h = jnp.zeros((1, 32, 32, 1)), jnp.zeros((1, 50))
    # 9.86 M and 0.78 M in the reference.
    assert count(ResidualEnergy(), v, h) == 9_859_250
    assert count(ConvGaussianPosterior(), v) == 779_364


def test_the_posterior_is_the_papers(x64):
    posterior = ConvGaussianPosterior(LATENTS, widths=(2, 3))
    v = images()
    phi = posterior.init(jax.random.key(2), v)
    params, x = flat(phi), np.asarray(v)
    for index in range(2):
        prefix = f"ConvEncoder_0/Conv_{index}"
        x = numpy_conv(x, params[f"{prefix}/kernel"], stride=2) + params[f"{prefix}/bias"]
        x = np.where(x > 0, x, 0.2 * x)
    x = x.reshape(2, -1)
    mean, log_std = (x @ params[f"{name}/kernel"] + params[f"{name}/bias"] for name in ("mean", "log_std"))
    q = posterior.apply(phi, v)
    np.testing.assert_allclose(q.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(q.variance, np.exp(2 * log_std), rtol=1e-12)
    assert q.batch_shape == (2,) and q.event_shape == (LATENTS,)


def test_initial_weights_are_uniform_in_the_root_of_the_inputs():
    energy = ResidualEnergy(LATENTS, 8)
    shape = (1, SIZE, SIZE, 3)
    key, v, h = jax.random.key(0), jnp.zeros(shape), jnp.zeros((1, LATENTS))
    params = flat(init_module(as_model("energy_fn", energy), "energy_fn", key, v, h))
    kernel, bias = params["trunk/Conv_0/kernel"], params["trunk/Conv_0/bias"]
    for values in (kernel, bias):
        assert np.abs(values).max() <= 27**-0.5
    np.testing.assert_allclose(kernel.std(), (3 * 27) ** -0.5, rtol=0.1)


def test_the_singular_value_by_power_iterations(x64):
    matrix = jax.random.normal(jax.random.key(0), (40, 9), jnp.float64)
    expected = np.linalg.svd(matrix, compute_uv=False)[0]
    found = largest_singular_value(matrix)
    assert expected * 0.98 <= found <= expected * (1 + 1e-12)


def test_spectral_norm_leaves_no_scale():
    energy = ResidualEnergy(LATENTS, CHANNELS, spectral_norm=True)
    v, h = images(dtype=jnp.float32), latents(jnp.float32)
    theta = jax.jit(energy.init)(jax.random.key(2), v, h)
    apply = jax.jit(energy.apply)
    block = theta["params"]["trunk"]["ResidualBlock_0"]
    scaled = jax.tree.map(lambda leaf: leaf, theta)
    kernel = 7 * block["Conv_0"]["kernel"]
    scaled["params"]["trunk"]["ResidualBlock_0"] = {**block, "Conv_0": {"kernel": kernel}}
    np.testing.assert_allclose(apply(theta, v, h), apply(scaled, v, h), rtol=1e-4)


def test_bfloat16_is_close_and_sums_in_float32():
    v, h = images(dtype=jnp.float32), latents(jnp.float32)
    theta = jax.jit(ResidualEnergy(LATENTS, CHANNELS).init)(jax.random.key(2), v, h)

    def gradient(dtype):
        energy = ResidualEnergy(LATENTS, CHANNELS, activation=jax.nn.silu, dtype=dtype)
        return jax.jit(jax.grad(lambda v: energy.apply(theta, v, h).sum()))(v)

    exact, found = gradient(None), gradient(jnp.bfloat16)
    assert found.dtype == jnp.float32
    difference = jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)
    assert 1e-5 < difference < 0.05


@pytest.mark.slow
def test_the_hypergradient_in_bfloat16_is_off_by_a_few_of_its_roundings():
    method = BiSM(MDSM(max_std=0.4), Fisher(), 0, Unrolled(1), Optimizers(paper_adam(), paper_adam()))
    v, posterior = images(dtype=jnp.float32), ConvGaussianPosterior(LATENTS, (4, 4, 4))

    def problem(dtype):
        energy = ResidualEnergy(LATENTS, CHANNELS, activation=jax.nn.silu, dtype=dtype)
        return bilevel_problem(method, energy, posterior), method.bind(energy, posterior)

    (exact_losses, algorithm), (losses, _) = problem(None), problem(jnp.bfloat16)
    state = algorithm.init(jax.random.key(0), v)
    noise = method.draw_noise(losses, jax.random.key(1), state.phi, v)
    exact, found = (theta_gradient(method, each, state, v, noise) for each in (exact_losses, losses))
    difference = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert 1e-5 < difference < 8 * 2**-8


@pytest.mark.parametrize(
    ("shape", "latent_shape", "match"),
    [
        ((2, 1, 8, 8), (2, 3), r"v has shape \(2, 1, 8, 8\); it must be .*colours.*move the colours"),
        ((2, 28, 28, 1), (2, 3), r"\(2, 28, 28, 1\).*multiples of 8. Pad"),
        ((2, 64), (2, 3), r"v has shape \(2, 64\)"),
        ((2, 8, 8, 1), (2, 4), r"h has shape \(2, 4\), not \(2, 3\).*num_hidden=3"),
        ((2, 8, 8, 1), (1, 3), r"h has shape \(1, 3\), not \(2, 3\)"),
    ],
)
def test_wrong_shapes_are_named(shape, latent_shape, match):
    with pytest.raises(ValueError, match=match):
        jax.eval_shape(
            ResidualEnergy(3, 2).init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(latent_shape)
        )


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ResidualEnergy(num_blocks=7), "num_blocks"),
        (lambda: ResidualEnergy(num_hidden=0), "num_hidden"),
        (lambda: ResidualEnergy(channels=1.5), "channels"),
        (lambda: ConvGaussianPosterior(0), "num_hidden"),
        (lambda: ConvGaussianPosterior(2, widths=(0,)), "widths"),
    ],
)
def test_wrong_options_are_named(make, match):
    with pytest.raises((ValueError, TypeError), match=match):
        make()


@pytest.mark.slow
def test_the_energy_without_latents(x64):
    energy, v = ResidualFreeEnergy(LATENTS, CHANNELS), images()
    theta = jax.jit(energy.init)(jax.random.key(2), v)
    # With h = 0 the first half of the joint layer of the energy with latents sees f alone.
    joint = theta["params"]["joint"]
    padded = {**joint, "kernel": jnp.concatenate([joint["kernel"], jnp.zeros_like(joint["kernel"])])}
    trunk = {"trunk": theta["params"]["ResidualTrunk_0"], "joint": padded}
    expected = numpy_energy({"params": trunk}, np.asarray(v), np.zeros((2, LATENTS)), 6)
    found = jax.jit(lambda theta, v: energy.apply(theta, v, method="free_energy"))(theta, v)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_decoder_draws_images():
    decoder = ConvDecoder((8, 16, 3), widths=(4, 2))
    h = jnp.eye(3)
    params = decoder.init(jax.random.key(0), h)
    drawn = decoder.apply(params, h)
    assert drawn.shape == (3, 8, 16, 3)
    assert drawn.min() > 0 and drawn.max() < 1
    alone = decoder.apply(params, h[1:2])
    np.testing.assert_allclose(drawn[1:2], alone, rtol=1e-5)
    assert np.abs(drawn[0] - drawn[1]).max() > 0
    with pytest.raises(ValueError, match=r"image_shape=\(6, 8, 1\).*multiples of 4 for 2 doublings"):
        ConvDecoder((6, 8, 1), widths=(4, 2))
