"""Malformed calls of `bism_jax.models`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.malformed.allowed import but_for
from benchmarks.malformed.campaign import Call
from benchmarks.malformed.values import scratch_folder
from bism_jax import models
from bism_jax.models import GRBM, CifarResNet, ImageClassifier, InceptionV3

PACKAGE = "bism_jax.models"
EXEMPT = {
    "InceptionV3": "takes no arguments; its images have an entry",
    "Model": "made by as_model",
    "ConditionalFlow": "made by FlowPosterior",
}
KEY = jax.random.key(0)
V = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
IMAGES = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
_HUGE = "a count is not compared with the memory there is"
_NO_WIDTHS = "no hidden layer"


def _counted(*names: str) -> dict[str, str]:
    return {f"{name}: huge": _HUGE for name in names}


def _modules() -> dict[str, Call]:
    widths = {"widths: empty": _NO_WIDTHS}
    image = {"channels": 4, "activation": jnp.tanh, "spectral_norm": False, "dtype": None}
    image_kinds = {"channels": "count", "activation": "function", "spectral_norm": "flag"}
    later = {"activation: no_arguments": "it is called by the network", **_counted("channels")}
    dtypes = ({"dtype": int}, {"dtype": "floating"}, {"dtype": 3}, {"dtype": jnp.complex64})
    residual = {"num_blocks": 6, **image}
    blocks = ({"num_blocks": 7}, {"num_blocks": None}, {"num_blocks": "6"}, {"num_blocks": True}, *dtypes)
    posterior = {"num_hidden": 2, "widths": (4,)}
    posterior_kinds = {"num_hidden": "count", "widths": "counts"}
    zero = ({"widths": (0,)},)
    return {
        "GRBM": Call(GRBM, {"num_hidden": 2}, {"num_hidden": "count"}, (), _counted("num_hidden")),
        "LinearGaussian": Call(
            models.LinearGaussian, {"num_latent": 2}, {"num_latent": "count"}, (), _counted("num_latent")
        ),
        "MLPEnergy": Call(models.MLPEnergy, {"widths": (4,)}, {"widths": "counts"}, zero, widths),
        "MLPCritic": Call(models.MLPCritic, {"widths": (4,)}, {"widths": "counts"}, zero, widths),
        "MLPDecoder": Call(
            models.MLPDecoder,
            {"visible": (2,), "widths": (4,)},
            {"visible": "counts", "widths": "counts"},
            zero,
            {**widths, "visible: empty": "a number"},
        ),
        "BernoulliPosterior": Call(
            models.BernoulliPosterior,
            {**posterior, "temperature": 0.1, "density": "concrete"},
            {**posterior_kinds, "temperature": "positive", "density": "choice"},
            zero,
            widths | _counted("num_hidden"),
        ),
        "GaussianPosterior": Call(
            models.GaussianPosterior, posterior, posterior_kinds, zero, widths | _counted("num_hidden")
        ),
        "ConvGaussianPosterior": Call(
            models.ConvGaussianPosterior, posterior, posterior_kinds, zero, widths | _counted("num_hidden")
        ),
        "ConvEncoder": Call(models.ConvEncoder, {"widths": (4,)}, {"widths": "counts"}, zero, widths),
        "ConvDecoder": Call(
            models.ConvDecoder,
            {"image_shape": (8, 8, 1), "widths": (4,)},
            {"image_shape": "counts", "widths": "counts"},
            ({"image_shape": (7, 8, 1)}, {"image_shape": (8, 8)}, *zero),
        ),
        "FlowPosterior": Call(
            models.FlowPosterior,
            {"num_hidden": 2, "encoder": None, "num_layers": 2, "width": 4},
            {"num_hidden": "count", "num_layers": "count", "width": "count", "encoder": "instance"},
            ({"num_hidden": 1}, {"num_layers": 1}),
            _counted("num_hidden", "num_layers", "width"),
        ),
        "ImageClassifier": Call(
            ImageClassifier,
            {"num_classes": 3, "widths": (4,), "num_features": 4},
            {"num_classes": "count", "widths": "counts", "num_features": "count"},
            zero,
            widths | _counted("num_classes", "num_features"),
        ),
        "CifarResNet": Call(CifarResNet, {"depth": 8}, {"depth": "count"}, ({"depth": 9}, {"depth": 2})),
        "ResidualEnergy": Call(
            models.ResidualEnergy,
            {"num_hidden": 2, **residual},
            {"num_hidden": "count", **image_kinds},
            blocks,
            later | _counted("num_hidden"),
        ),
        "ResidualFreeEnergy": Call(
            models.ResidualFreeEnergy,
            {"num_features": 2, **residual},
            {"num_features": "count", **image_kinds},
            blocks,
            later | _counted("num_features"),
        ),
        "ReconstructionEnergy": Call(
            models.ReconstructionEnergy,
            {"num_hidden": 2, "noise_std": 0.1, **image},
            {"num_hidden": "count", "noise_std": "positive", **image_kinds},
            dtypes,
            later | _counted("num_hidden"),
        ),
        "ReconstructionFreeEnergy": Call(
            models.ReconstructionFreeEnergy,
            {"num_code": 2, "noise_std": 0.1, **image},
            {"num_code": "count", "noise_std": "positive", **image_kinds},
            dtypes,
            later | _counted("num_code"),
        ),
    }


def _distributions() -> dict[str, Call]:
    logits = jnp.ones((4, 2))
    arrays = (None, "x", 3.0, logits.astype(int), logits[:0], [[1.0]])
    return {
        "RelaxedBernoulli": Call(
            models.RelaxedBernoulli,
            {"logits": logits, "temperature": 0.1, "density": "concrete"},
            {"temperature": "positive", "density": "choice"},
            tuple({"logits": one} for one in arrays),
            {"temperature: pair": "one of each latent"},
        ),
        "DiagonalGaussian": Call(
            models.DiagonalGaussian,
            {"loc": logits, "scale": logits},
            {},
            (*({"loc": one} for one in arrays), *({"scale": one} for one in arrays)),
        ),
    }


def _features() -> dict[str, Call]:
    """Networks as functions of images, which are wrong."""
    classifier, resnet = ImageClassifier(3, (4,), 4), CifarResNet(8)
    params = jax.jit(classifier.init)(KEY, IMAGES)
    made = models.image_features("a classifier", classifier, params)
    residual = models.image_features("a residual network", resnet, jax.jit(resnet.init)(KEY, IMAGES))
    inception = InceptionV3()
    images: tuple[Any, ...] = (
        255 * IMAGES,
        (255 * IMAGES).astype(np.uint8),
        2 * IMAGES - 1,
        IMAGES * np.nan,
        IMAGES[:0],
    )
    images += (IMAGES.transpose(0, 3, 1, 2), IMAGES[0], IMAGES[..., 0], IMAGES[..., :1], None)
    images += ("x", 3.0, IMAGES > 0.5, IMAGES.tolist(), IMAGES.astype(str))
    bad = tuple({"images": one} for one in images)

    def through_resnet(images: Any) -> Any:
        return resnet.apply(residual.params, images)

    def through_inception(images: Any) -> Any:
        return jax.eval_shape(inception.init, KEY, images)  # its shapes alone: the network is large

    # Of what is traced no values are known.
    wrong_shapes = tuple({"images": images[index]} for index in (1, 4, 5, 6, 7, 8))
    small = ({"images": IMAGES[:, :16]},)
    wrong_params: tuple[dict[str, Any], ...] = (
        {"params": {"a": "b"}},
        {"params": {"a": jnp.ones(2, int)}},
        {"params": None},
    )
    wrong_params += ({"params": {"a": jnp.ones(2) * jnp.nan}}, {"params": 3}, {"params": (params, params)})
    return {
        "ImageFeatures": Call(made.__call__, {"images": IMAGES}, {}, bad),
        "ImageFeatures of a CifarResNet": Call(residual.__call__, {"images": IMAGES}, {}, (*bad, *small)),
        "CifarResNet.apply": Call(through_resnet, {"images": IMAGES}, {}, (*bad[:9], *small)),
        "InceptionV3.init": Call(through_inception, {"images": IMAGES}, {}, wrong_shapes),
        "image_features": Call(
            models.image_features,
            {"label": "a network", "network": classifier, "params": params},
            {"label": "text", "network": "instance"},
            ({"network": GRBM(2)}, *wrong_params),
        ),
    }


def _files() -> dict[str, Call]:
    folder = scratch_folder()
    text, cut, other, nan = (folder / name for name in ("text.npz", "cut.npz", "other.npz", "nan.npz"))
    text.write_text("no archive")
    np.savez(other, weights=np.ones(3))
    np.savez(nan, weights=np.full(3, np.nan))
    cut.write_bytes(other.read_bytes()[:60])
    paths = tuple({"path": path} for path in (folder / "absent.npz", text, cut, other, nan))
    loaders = {"load_cifar_resnet": models.load_cifar_resnet, "load_inception_v3": models.load_inception_v3}
    valid = {"path": folder}
    return {
        name: Call(but_for(loader, valid), valid, {"path": "path"}, paths) for name, loader in loaders.items()
    }


def calls() -> dict[str, Call]:
    """One valid call for each public name."""
    taken = {"fn: no_arguments": "a function is taken at its word until it is called"}
    model = models.as_model("energy_fn", GRBM(2))
    called = "it is called later"
    return {
        **_modules(),
        **_distributions(),
        **_features(),
        **_files(),
        "as_model": Call(
            models.as_model,
            {"argument": "fn", "fn": GRBM(2)},
            {"argument": "text", "fn": "model"},
            (),
            taken,
        ),
        "factor": Call(models.factor, {"energy": model}, {"energy": "instance"}, ({"energy": GRBM(2)},)),
        "is_factored": Call(models.is_factored, {"energy": model}, {"energy": "instance"}),
        "without_features": Call(
            models.without_features,
            {"energy_fn": lambda theta, v, h: 0.0},
            {"energy_fn": "function"},
            (),
            {"energy_fn: no_arguments": called},
        ),
        "FactoredEnergy": Call(
            models.FactoredEnergy,
            {"features": lambda theta, v: (), "head": lambda theta, v, f, h: 0.0},
            {"features": "function", "head": "function"},
            (),
            {"features: no_arguments": called, "head: no_arguments": called},
        ),
        "maximum_likelihood": Call(
            models.maximum_likelihood,
            {"v": V, "num_latent": 1},
            {"v": "features", "num_latent": "count"},
            ({"num_latent": 3}, {"v": np.ones((6, 3), np.float32)}),
            {"v: one column more": "as many columns as there are"},
        ),
    }
