"""Feature networks against NumPy forward passes on raw arrays, and against real images and labels."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from numpy.lib.stride_tricks import sliding_window_view

from bism_jax.evaluation import (
    class_coverage,
    class_probabilities,
    extract_features,
    train_image_classifier,
)
from bism_jax.models import (
    CifarResNet,
    ImageClassifier,
    ImageFeatures,
    InceptionV3,
    image_features,
    load_cifar_resnet,
    load_inception_v3,
)
from bism_jax.models.networks._inception import _BlockC, _max_pool, _mean_pool, resize

IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


class Reference:
    """Layers on `[B, channels, height, width]` by NumPy, whose arrays it draws by name and keeps."""

    def __init__(self, epsilon):
        self.arrays, self.epsilon, self.rng = {}, epsilon, np.random.default_rng(0)

    def array(self, name, *shape, scale=1.0, shift=0.0):
        if name not in self.arrays:
            drawn = shift + scale * self.rng.uniform(-1, 1, size=shape)
            self.arrays[name] = drawn.astype(np.float32)
        return self.arrays[name].astype(np.float64)

    def conv(self, x, name, outputs, size, stride=1, padding=(0, 0)):
        rows, columns = size
        scale = (6 / (x.shape[1] * rows * columns)) ** 0.5
        weight = self.array(name, outputs, x.shape[1], rows, columns, scale=scale)
        x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
        windows = sliding_window_view(x, size, axis=(2, 3))[:, :, ::stride, ::stride]
        return np.einsum("bchwij,ocij->bohw", windows, weight, optimize=True)

    def norm(self, x, name):
        count = x.shape[1]
        gamma = self.array(f"{name}.weight", count, scale=0.3, shift=1)
        beta = self.array(f"{name}.bias", count, scale=0.2)
        mean = self.array(f"{name}.running_mean", count, scale=0.2)
        variance = self.array(f"{name}.running_var", count, scale=0.3, shift=1)
        mean, variance, gamma, beta = (part[:, None, None] for part in (mean, variance, gamma, beta))
        return (x - mean) / np.sqrt(variance + self.epsilon) * gamma + beta


def pool(x, reduce, stride=1, padding=0):
    """The reduction of windows of 3 x 3; NaN marks the padding."""
    x = np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2), constant_values=np.nan)
    return reduce(sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride], axis=(-2, -1))


def bilinear(images, side):
    """The formula with pixel centres at (i + 1/2), clamped at the border; `[B, H, W, C]`, float64."""
    for axis in (1, 2):
        length = images.shape[axis]
        place = np.clip((np.arange(side) + 0.5) * length / side - 0.5, 0, length - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, length - 1)
        weight = (place - low).reshape([-1 if other == axis else 1 for other in range(4)])
        images = np.take(images, low, axis) * (1 - weight) + np.take(images, high, axis) * weight
    return images


# ---------------------------------------------------------------- CIFAR


def resnet8(images, reference):
    """Features and logits of one block a stage."""

    def conv(x, layer, outputs, stride=1):
        norm = layer.replace("conv", "bn")
        return reference.norm(reference.conv(x, f"{layer}.weight", outputs, (3, 3), stride, (1, 1)), norm)

    x = np.moveaxis((images - IMAGENET_MEAN) / IMAGENET_STD, 3, 1)
    x = np.maximum(conv(x, "conv1", 16), 0)
    for stage, width in ((1, 16), (2, 32), (3, 64)):
        inner = np.maximum(conv(x, f"layer{stage}.0.conv1", width, 1 if stage == 1 else 2), 0)
        residual = conv(inner, f"layer{stage}.0.conv2", width)
        if stage > 1:
            x = np.pad(x[:, :, ::2, ::2], ((0, 0), (width // 4, width // 4), (0, 0), (0, 0)))
        x = np.maximum(x + residual, 0)
    features = x.mean(axis=(2, 3))
    logits = features @ reference.array("linear.weight", 10, 64).T + reference.array("linear.bias", 10)
    return features, logits


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    images, reference = uniform(3, 32, 32, 3), Reference(epsilon=1e-5)
    features, logits = resnet8(images.astype(np.float64), reference)
    path = tmp_path_factory.mktemp("resnet") / "resnet8.npz"
    np.savez(path, **reference.arrays)
    return path, reference.arrays, images, features, logits


def test_cifar_resnet_agrees_with_a_numpy_forward_pass(resnet):
    path, _, images, features, logits = resnet
    network = load_cifar_resnet(path)
    assert network.network == CifarResNet(8) and network.name.startswith("CifarResNet8@")
    np.testing.assert_allclose(network(images), features, rtol=2e-4, atol=1e-4)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(class_probabilities(network, images, batch_size=2), expected, atol=1e-4)


def test_the_name_tells_the_weights_and_nothing_else(resnet, tmp_path):
    path, arrays, *_ = resnet
    np.savez(tmp_path / "same.npz", **dict(reversed(arrays.items())))
    np.savez(tmp_path / "other.npz", **(arrays | {"linear.bias": arrays["linear.bias"] + 1}))
    names = [load_cifar_resnet(file).name for file in (path, tmp_path / "same.npz", tmp_path / "other.npz")]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer2.0.bn1.running_var": None}, r"lacks 'layer2\.0\.bn1\.running_var'; these are"),
        ({"layer1.0.conv1.weight": None}, r"lacks 'layer1\.0\.conv1\.weight'"),
        ({"layer2.0.shortcut.weight": np.ones(3)}, r"unknown arrays 'layer2\.0\.shortcut\.weight'"),
        ({"linear.weight": np.ones((100, 64))}, r"'linear\.weight' .* shape \(100, 64\), not \(10, 64\)"),
        ({"conv1.weight": np.full((16, 3, 3, 3), np.nan)}, r"'conv1\.weight' .* finite"),
        ({"conv1.weight": np.ones((16, 3, 3, 3), int)}, r"'conv1\.weight' .* floating"),
    ],
)
def test_weights_of_another_network_are_named(resnet, tmp_path, change, message):
    arrays = {name: array for name, array in (resnet[1] | change).items() if array is not None}
    np.savez(tmp_path / "weights.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_cifar_resnet(tmp_path / "weights.npz")


def test_counters_of_normalisations_are_passed_over(resnet, tmp_path):
    np.savez(tmp_path / "weights.npz", **resnet[1], **{"bn1.num_batches_tracked": np.array(5)})
    assert load_cifar_resnet(tmp_path / "weights.npz").network.depth == 8


@pytest.mark.parametrize("load_fn", [load_cifar_resnet, load_inception_v3])
def test_files_that_are_no_weights(load_fn, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*absent.*nothing is downloaded"):
        load_fn(tmp_path / "absent.npz")
    for name, content in (("text.npz", b"no archive"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as an npz archive"):
            load_fn(tmp_path / name)
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(ValueError, match="cannot be read as an npz archive"):
        load_fn(tmp_path / "one.npy")
    np.savez(tmp_path / "other.npz", weight=np.ones(3))
    with pytest.raises(ValueError, match=r"no layers|lacks"):
        load_fn(tmp_path / "other.npz")


@pytest.mark.parametrize("depth", [0, 2, 18, 21, True, 20.0, None])
def test_depth_of_a_cifar_resnet(depth):
    with pytest.raises(ValueError, match="depth must be"):
        CifarResNet(depth)


def tfds_images(real_data_dir, name, split, num_rows=None):
    """Images in [0, 1] and labels, in the order of the file."""
    import tensorflow_datasets as tfds

    folder = max((real_data_dir / "tfds" / name).iterdir())
    source = tfds.builder_from_directory(folder).as_data_source(split)
    rows = [source[index] for index in range(num_rows or len(source))]
    images = np.stack([row["image"] for row in rows]).astype(np.float32) / 255
    return images, np.array([row["label"] for row in rows])


def accuracy(classifier, images, labels):
    return (class_probabilities(classifier, images).argmax(axis=1) == labels).mean()


def pretrained_resnet(real_data_dir, depth):
    (path,) = (real_data_dir / "features").glob(f"cifar10_resnet{depth}-*.npz")
    return load_cifar_resnet(path)


def test_resnet20_classifies_the_first_cifar_images(real_data_dir):
    images, labels = tfds_images(real_data_dir, "cifar10", "test", 1000)
    assert accuracy(pretrained_resnet(real_data_dir, 20), images, labels) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "expected"), [(20, 0.9173), (56, 0.9339)])
def test_published_accuracy_on_cifar(real_data_dir, depth, expected):
    images, labels = tfds_images(real_data_dir, "cifar10", "test")
    assert abs(accuracy(pretrained_resnet(real_data_dir, depth), images, labels) - expected) < 2e-4


# ---------------------------------------------------------------- Inception


def inception(images, reference):
    """The features of the FID's Inception, with the names of its PyTorch port."""

    def conv(x, name, outputs, size=(1, 1), stride=1, padding=(0, 0)):
        x = reference.conv(x, f"{name}.conv.weight", outputs, size, stride, padding)
        return np.maximum(reference.norm(x, f"{name}.bn"), 0)

    def chain(x, block, *layers):
        for name, outputs, *rest in layers:
            x = conv(x, f"{block}.{name}", outputs, *rest)
        return x

    square3, square5 = ((3, 3), 1, (1, 1)), ((5, 5), 1, (2, 2))
    row3, column3 = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))
    row7, column7 = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    halving = ((3, 3), 2, (0, 0))

    x = np.moveaxis(2 * bilinear(images, 299) - 1, 3, 1)
    x = conv(x, "Conv2d_1a_3x3", 32, *halving)
    x = conv(conv(x, "Conv2d_2a_3x3", 32, (3, 3)), "Conv2d_2b_3x3", 64, *square3)
    x = conv(pool(x, np.max, stride=2), "Conv2d_3b_1x1", 80)
    x = pool(conv(x, "Conv2d_4a_3x3", 192, (3, 3)), np.max, stride=2)
    for block, width in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        double = [("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, *square3), ("branch3x3dbl_3", 96, *square3)]
        parts = [
            chain(x, block, ("branch1x1", 64)),
            chain(x, block, ("branch5x5_1", 48), ("branch5x5_2", 64, *square5)),
            chain(x, block, *double),
            chain(pool(x, np.nanmean, padding=1), block, ("branch_pool", width)),
        ]
        x = np.concatenate(parts, axis=1)
    double = [("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, *square3), ("branch3x3dbl_3", 96, *halving)]
    parts = [
        chain(x, "Mixed_6a", ("branch3x3", 384, *halving)),
        chain(x, "Mixed_6a", *double),
        pool(x, np.max, stride=2),
    ]
    x = np.concatenate(parts, axis=1)
    for block, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        single = [("branch7x7_1", width), ("branch7x7_2", width, *row7), ("branch7x7_3", 192, *column7)]
        double = [
            ("branch7x7dbl_1", width),
            ("branch7x7dbl_2", width, *column7),
            ("branch7x7dbl_3", width, *row7),
            ("branch7x7dbl_4", width, *column7),
            ("branch7x7dbl_5", 192, *row7),
        ]
        parts = [
            chain(x, block, ("branch1x1", 192)),
            chain(x, block, *single),
            chain(x, block, *double),
            chain(pool(x, np.nanmean, padding=1), block, ("branch_pool", 192)),
        ]
        x = np.concatenate(parts, axis=1)
    factored = [
        ("branch7x7x3_1", 192),
        ("branch7x7x3_2", 192, *row7),
        ("branch7x7x3_3", 192, *column7),
        ("branch7x7x3_4", 192, *halving),
    ]
    parts = [
        chain(x, "Mixed_7a", ("branch3x3_1", 192), ("branch3x3_2", 320, *halving)),
        chain(x, "Mixed_7a", *factored),
        pool(x, np.max, stride=2),
    ]
    x = np.concatenate(parts, axis=1)
    for block, reduce in (("Mixed_7b", np.nanmean), ("Mixed_7c", np.nanmax)):
        single = chain(x, block, ("branch3x3_1", 384))
        double = chain(x, block, ("branch3x3dbl_1", 448), ("branch3x3dbl_2", 384, *square3))
        parts = [
            chain(x, block, ("branch1x1", 320)),
            chain(single, block, ("branch3x3_2a", 384, *row3)),
            chain(single, block, ("branch3x3_2b", 384, *column3)),
            chain(double, block, ("branch3x3dbl_3a", 384, *row3)),
            chain(double, block, ("branch3x3dbl_3b", 384, *column3)),
            chain(pool(x, reduce, padding=1), block, ("branch_pool", 192)),
        ]
        x = np.concatenate(parts, axis=1)
    return x.mean(axis=(2, 3))


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory):
    """A file of random weights, an image and its features."""
    image, reference = uniform(1, 20, 24, 3), Reference(epsilon=1e-3)
    features = inception(image.astype(np.float64), reference)
    reference.array("fc.weight", 1008, 2048)
    reference.array("fc.bias", 1008)
    path = tmp_path_factory.mktemp("inception") / "inception.npz"
    np.savez(path, **reference.arrays)
    return path, reference.arrays, image, features


@pytest.mark.slow
def test_inception_agrees_with_a_numpy_forward_pass(inception_weights):
    path, _, image, features = inception_weights
    network = load_inception_v3(path)
    assert network.name.startswith("InceptionV3@") and features.std() > 0
    found = np.asarray(network(image))
    assert found.shape == (1, 2048)
    np.testing.assert_allclose(found, features, rtol=1e-3, atol=1e-4 * features.max())


@pytest.mark.slow
def test_torchvisions_inception_is_refused(inception_weights, tmp_path):
    arrays = dict(inception_weights[1])
    for change, message in (
        ({"fc.weight": np.ones((1000, 2048))}, r"'fc\.weight' .* shape \(1000, 2048\), not \(1008, 2048\)"),
        ({"AuxLogits.conv0.conv.weight": np.ones(1)}, r"unknown arrays 'AuxLogits"),
        ({"Mixed_7c.branch_pool.bn.bias": None}, r"lacks 'Mixed_7c\.branch_pool\.bn\.bias'"),
    ):
        changed = {name: array for name, array in (arrays | change).items() if array is not None}
        np.savez(tmp_path / "weights.npz", **changed)
        with pytest.raises(ValueError, match=message):
            load_inception_v3(tmp_path / "weights.npz")


def test_number_of_inceptions_parameters_and_features():
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    features, variables = jax.eval_shape(InceptionV3().init_with_output, jax.random.key(0), images)
    flat = traverse_util.flatten_dict(variables["params"])
    kernels = [leaf for path, leaf in flat.items() if path[-1] == "kernel"]
    assert features.shape == (2, 2048) and len(kernels) == 94
    # What Keras counts as trainable in its InceptionV3 without a top: kernels and shifts.
    assert sum(leaf.size for leaf in flat.values()) == 21_768_352


def test_pools_leave_the_padding_out():
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)) - 3  # below the padding's 0
    first = np.moveaxis(x, 3, 1)
    for found, expected in (
        (_mean_pool(x), pool(first, np.nanmean, padding=1)),
        (_max_pool(x, stride=1, padding=1), pool(first, np.nanmax, padding=1)),
        (_max_pool(x), pool(first, np.max, stride=2)),
    ):
        np.testing.assert_allclose(np.moveaxis(found, 3, 1), expected, rtol=1e-5)


def test_the_last_block_takes_the_maximum_where_the_one_before_averages():
    x = uniform(1, 4, 4, 8)
    params = jax.jit(_BlockC(max_pool=True).init)(jax.random.key(0), x)
    weights = np.asarray(params["params"]["branch_pool"]["kernel"][0, 0], np.float64)
    for max_pool, reduce in ((True, np.nanmax), (False, np.nanmean)):
        pooled = np.moveaxis(pool(np.moveaxis(x, 3, 1), reduce, padding=1), 1, 3)
        found = jax.jit(_BlockC(max_pool).apply)(params, x)[..., -192:]
        np.testing.assert_allclose(found, np.maximum(pooled @ weights, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 13), (299, 299), (400, 310)])
def test_resizing_is_bilinear_without_antialiasing(size):
    images = uniform(1, *size, 2)
    np.testing.assert_allclose(resize(jnp.asarray(images)), bilinear(images, 299), atol=1e-4)


# ---------------------------------------------------------------- images that a network does not take


NETWORKS = {
    "CifarResNet": (CifarResNet(8), (2, 32, 32, 3)),
    "InceptionV3": (InceptionV3(), (2, 32, 32, 3)),
    "ImageClassifier": (ImageClassifier(widths=(2,), num_features=3), (2, 8, 8, 1)),
}


def refused(network, images, message):
    # The images are looked at before the parameters.
    with pytest.raises(ValueError, match=message):
        image_features(type(network).__name__, network, {})(images)


@pytest.mark.parametrize("name", NETWORKS)
def test_images_outside_the_range(name):
    network, shape = NETWORKS[name]
    for images in (uniform(*shape) * 255, uniform(*shape) - 0.5, np.full(shape, np.nan)):
        refused(network, images, rf"{name}.* takes images in \[0, 1\], but theirs lie between")


@pytest.mark.parametrize("name", NETWORKS)
def test_images_of_another_dtype_or_rank(name):
    network, shape = NETWORKS[name]
    refused(network, np.ones(shape, np.uint8), f"{name} takes floating images .* uint8; divide bytes by 255")
    refused(network, np.ones(shape[1:], np.float32), rf"{name} takes images of shape \[batch")
    refused(network, np.ones((0, *shape[1:]), np.float32), rf"{name} takes images of shape \[batch")


def test_images_of_another_size_or_with_other_channels():
    for name in ("CifarResNet", "InceptionV3"):
        grey, first = uniform(2, 32, 32, 1), uniform(2, 3, 32, 32)
        refused(NETWORKS[name][0], grey, f"{name} takes images with 3 channels .* repeat the channel")
        refused(NETWORKS[name][0], first, f"{name} takes images with 3 channels .* move the axis")
    refused(CifarResNet(8), uniform(2, 28, 28, 3), "CifarResNet takes images of 32 x 32 pixels.* pad or crop")


def test_parameters_are_not_printed():
    features = image_features("Net", ImageClassifier(), {"params": {"w": np.ones(3)}})
    assert re.fullmatch(r"ImageFeatures\(name='Net@[0-9a-f]{8}', network=.*\)", repr(features), re.DOTALL)
    assert "array" not in repr(features)


# ---------------------------------------------------------------- the classifier


@functools.cache
def stripes():
    """Images of vertical, horizontal and no stripes, with their classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 3
    grid = np.indices((8, 8)) % 2
    patterns = np.stack([grid[0], grid[1], np.full((8, 8), 0.5)])
    images = 0.6 * patterns[labels] + 0.4 * rng.uniform(size=(96, 8, 8))
    return images[..., None].astype(np.float32), labels


@pytest.fixture(scope="module")
def classifier():
    return train_image_classifier(*stripes(), jax.random.key(0), num_epochs=40, batch_size=32)


def test_a_trained_classifier_tells_stripes(classifier):
    images, labels = stripes()
    probabilities = class_probabilities(classifier, images, batch_size=40)
    assert probabilities.shape == (96, 3) and accuracy(classifier, images, labels) > 0.95
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert isinstance(classifier, ImageFeatures) and classifier.name.startswith("ImageClassifier@")
    assert extract_features(classifier, images, batch_size=40).shape == (96, 128)


def test_training_is_reproducible(classifier):
    train = functools.partial(train_image_classifier, *stripes(), num_epochs=40, batch_size=32)
    assert train(jax.random.key(0)).name == classifier.name != train(jax.random.key(1)).name


def test_features_are_what_the_logits_are_linear_in(classifier):
    images = stripes()[0][:5]
    head = classifier.params["params"]["head"]
    logits = np.asarray(classifier(images)) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(class_probabilities(classifier, images), expected, rtol=1e-4, atol=1e-6)


def test_class_coverage_counts_confident_rows():
    probabilities = [[0.95, 0.05, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0], [0.02, 0.03, 0.95]]
    assert class_coverage(np.array(probabilities)) == (0.75, 2)
    assert class_coverage(np.array(probabilities), threshold=0.0) == (1.0, 2)
    assert class_coverage(np.full((4, 2), 0.5)) == (0.0, 0)


def test_wrong_probabilities_and_classifiers_are_refused(classifier):
    not_numbers, negative = np.full((2, 2), np.nan), np.array([[1.5, -0.5]])
    for wrong in (np.ones((3, 2)), np.ones(3), np.ones((0, 2)), negative, not_numbers):
        with pytest.raises(ValueError, match="probabilities must be a matrix"):
            class_coverage(wrong)
    with pytest.raises(ValueError, match="threshold must be at least 0 and below 1"):
        class_coverage(np.eye(2), threshold=1.0)
    with pytest.raises(ValueError, match=r"needs a network with logits.*not InceptionV3"):
        class_probabilities(image_features("InceptionV3", InceptionV3(), {}), stripes()[0])
    with pytest.raises(ValueError, match=r"needs a network with logits.*not function"):
        class_probabilities(lambda images: images, stripes()[0])
    with pytest.raises(ValueError, match=r"takes images in \[0, 1\]"):
        class_probabilities(classifier, stripes()[0] * 255)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(95, int)}, r"labels must hold one class for each of the 96 images, not \(95,\)"),
        ({"labels": np.eye(96)}, r"labels must hold one class"),
        ({"labels": np.ones(96)}, "labels must be integers from 0"),
        ({"labels": np.zeros(96, int)}, "at least two classes"),
        ({"labels": np.arange(96) - 1}, "labels must be integers from 0"),
        ({"images": stripes()[0] * 255}, r"ImageClassifier takes images in \[0, 1\]"),
        ({"images": stripes()[0][..., 0]}, r"ImageClassifier takes images of shape"),
        ({"images": (stripes()[0] * 255).astype(np.uint8)}, "divide bytes by 255"),
        ({"num_epochs": 0}, "num_epochs must be an integer of at least 1"),
        ({"batch_size": 97}, "batch_size=97 exceeds the 96 rows"),
    ],
)
def test_wrong_training_arguments_are_refused(change, message):
    images, labels = stripes()
    arguments = {"images": images, "labels": labels, "rng_key": jax.random.key(0), "batch_size": 32} | change
    with pytest.raises(ValueError, match=message):
        train_image_classifier(**arguments)


@pytest.mark.slow
def test_mnist_classifier_is_right_for_99_in_100(real_data_dir):
    def padded(split):
        images, labels = tfds_images(real_data_dir, "mnist", split)
        return np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))), labels

    classifier = train_image_classifier(*padded("train"), jax.random.key(0))
    images, labels = padded("test")
    assert accuracy(classifier, images, labels) > 0.99
    coverage = class_coverage(class_probabilities(classifier, images))
    assert coverage.num_classes == 10 and coverage.confident_fraction > 0.95
