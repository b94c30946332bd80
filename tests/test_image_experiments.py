"""The experiments on images: their settings, the files they leave, and what they refuse."""

import dataclasses
import json

import chex
import jax
import numpy as np
import pytest

from bism_jax import BiDVL, BiSM, ScoreMatching, VaGES
from bism_jax.data import load_image_split
from bism_jax.evaluation import train_image_classifier
from bism_jax.models import ReconstructionFreeEnergy
from experiments import evaluate, images, sample
from experiments.imaging.config import NetworkConfig, SamplingConfig, TrainingConfig, from_json, preset
from experiments.imaging.networks import make_energy, make_method, make_posterior
from experiments.imaging.trained import read_trained, write_weights
from experiments.run_folder import RunFolder

TINY = dataclasses.replace(
    preset("mnist", "smoke"),
    network=NetworkConfig(num_hidden=3, channels=1, widths=(2, 2, 2)),
    sampling=SamplingConfig(0.1, 1, 2, 1),
    iterations=4,
    batch_size=10,
    num_images=50,
    picture_every=2,
    checkpoint_every=2,
)


def shapes(config):
    energy, posterior, key = make_energy(config), make_posterior(config), jax.random.key(0)
    v, h = (
        np.zeros((1, *config.image_shape), np.float32),
        np.zeros((1, config.network.num_hidden), np.float32),
    )
    return jax.eval_shape(energy.init, key, v, h), jax.eval_shape(posterior.init, key, v)


def count(config):
    return tuple(sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in shapes(config))


def test_the_paper_preset_is_the_papers():
    mnist, cifar10 = preset("mnist", "paper"), preset("cifar10", "paper")
    assert count(mnist) == (9_859_250, 779_364)
    assert (mnist.iterations, mnist.batch_size, mnist.training.learning_rate) == (100_000, 100, 1e-4)
    assert (mnist.training.min_std, mnist.training.max_std, mnist.training.spacing) == (0.1, 3.0, "geometric")
    assert (cifar10.network.num_blocks, cifar10.network.channels, cifar10.iterations) == (9, 128, 300_000)
    assert (cifar10.training.min_std, cifar10.training.max_std, cifar10.training.spacing) == (
        0.05,
        1.2,
        "linear",
    )
    assert cifar10.training.learning_rate == 5e-5
    assert mnist.sampling == SamplingConfig(0.02, 500, 2_000, 200)


def test_a_command_line_changes_the_preset():
    config = images.parse(
        ["--data", "cifar10", "--preset", "smoke", "--training.num-steps", "0", "--seed", "3"]
    )
    expected = preset("cifar10", "smoke")
    training = dataclasses.replace(expected.training, num_steps=0)
    assert config == dataclasses.replace(expected, training=training, seed=3)
    assert images.parse([]) == preset("mnist", "small")


def test_a_configuration_survives_its_file(tmp_path):
    for config in (TINY, preset("celeba", "paper")):
        folder = RunFolder("images", config, tmp_path / config.data).path
        assert from_json(json.loads((folder / "config.json").read_text())) == config
    with pytest.raises(ValueError, match=r"config.json is not that of a run of experiments.images"):
        from_json({"experiment": "frey_face"})


@pytest.mark.parametrize(
    ("name", "method"),
    [
        pytest.param("bimdsm", BiSM, marks=pytest.mark.slow),
        pytest.param("vages", VaGES, marks=pytest.mark.slow),
        ("mdsm", ScoreMatching),
        pytest.param("bidvl", BiDVL, marks=pytest.mark.slow),
    ],
)
def test_every_method_binds_to_its_networks(name, method):
    config = dataclasses.replace(TINY, training=TrainingConfig(name, num_steps=1, lower_steps=1))
    algorithm = make_method(config).bind(make_energy(config), make_posterior(config))
    assert isinstance(make_method(config), method)
    v = jax.ShapeDtypeStruct((8, *config.image_shape), np.float32)
    state = jax.eval_shape(algorithm.init, jax.random.key(0), v)
    new_state, _ = jax.eval_shape(algorithm.step, jax.random.key(0), state, v)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)


def write_run(path, config):
    folder = RunFolder("images", config, path).path
    numbers = np.random.default_rng(0)
    theta, phi = jax.tree.map(lambda leaf: numbers.normal(size=leaf.shape).astype(leaf.dtype), shapes(config))
    write_weights(folder, theta, phi)
    return folder, theta, phi


def test_weights_come_back_from_a_run_folder(tmp_path):
    folder, theta, phi = write_run(tmp_path / "run", TINY)
    model = read_trained(folder)
    for found, expected in ((model.theta, theta), (model.phi, phi)):
        chex.assert_trees_all_equal(found, expected)
    v = np.zeros((3, 32, 32, 1), np.float32)
    assert model.latent_mean(v, batch_size=2).shape == (3, 3)


def test_the_small_preset_draws_with_a_reconstruction_energy():
    small = preset("mnist", "small")
    assert small.network.energy == "reconstruction"
    with_latents = make_energy(small)
    assert (with_latents.num_hidden, with_latents.channels) == (50, 16)
    without = make_energy(dataclasses.replace(small, training=TrainingConfig("mdsm")))
    assert without == ReconstructionFreeEnergy(50, 16)


def test_another_folder_or_another_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config.json, so it is not a run folder"):
        read_trained(tmp_path)
    folder, _, _ = write_run(tmp_path / "run", TINY)
    other = dataclasses.replace(TINY, network=NetworkConfig(num_hidden=4, channels=1, widths=(2, 2, 2)))
    config = json.loads((folder / "config.json").read_text())
    config["network"]["num_hidden"] = other.network.num_hidden
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"'phi/params/log_std/bias' has shape \(3,\).* have \(4,\).*another model"
    ):
        read_trained(folder)
    (folder / "weights.npz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"has no weights.npz, so it is not the folder of a finished run"
    ):
        read_trained(folder)


@pytest.fixture(scope="module")
def classifier():
    """One for both runs; that of the experiment is trained on all images."""
    train = load_image_split("mnist", "train")
    return train_image_classifier(train.images[:5000], train.labels[:5000], jax.random.key(0), num_epochs=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bimdsm", "mdsm"])
def test_a_run_is_trained_sampled_and_measured(tmp_path, real_data_dir, request, monkeypatch, name):
    classifier = request.getfixturevalue("classifier")  # after the data is known to be there
    monkeypatch.setattr(evaluate, "_classifier", lambda *_: classifier)
    training = dataclasses.replace(TINY.training, name=name, num_steps=1)
    config = dataclasses.replace(TINY, training=training, data_dir=real_data_dir, output=tmp_path / "run")
    folder = images.run(config)
    written = {file.name for file in folder.iterdir()}
    pictures = {"samples.png", "film_strip.png", "film.gif", "history.png"}
    if name == "bimdsm":
        pictures |= {"reconstructions.png", "variations.png", "interpolations.png", "inpainting.png"}
    assert written >= pictures | {"weights.npz", "history.csv", "config.json", "checkpoints", "samples"}
    assert (folder / "samples" / "iteration-2.png").is_file()

    drawn = sample.run(sample.Config(folder, num_samples=5, batch_size=3, data_dir=real_data_dir))
    with np.load(drawn / "samples.npz") as archive:
        assert archive["images"].shape == (5, 32, 32, 1)
    with pytest.raises(FileExistsError, match="choose another --seed or --output"):
        sample.run(sample.Config(folder, num_samples=5, data_dir=real_data_dir))

    options = evaluate.Config(
        folder, num_samples=150, num_probe_images=300, batch_size=150, data_dir=real_data_dir
    )
    metrics = evaluate.run(options)
    assert metrics["classifier test accuracy"] > 0.9
    assert 0 <= metrics["AUROC against fashion_mnist, energy"] <= 1
    assert any(key.startswith("Frechet distance (ImageClassifier@") for key in metrics)
    if name == "bimdsm":
        assert metrics["probe accuracy on 3 latents"] > 0.1
    assert json.loads((folder / "evaluation" / "metrics.json").read_text()) == metrics
    with pytest.raises(FileExistsError, match="num_samples=150, not 151"):
        evaluate.run(dataclasses.replace(options, num_samples=151))


def test_a_flow_has_a_location_too(tmp_path):
    config = dataclasses.replace(TINY, network=dataclasses.replace(TINY.network, posterior="flow"))
    folder, _, _ = write_run(tmp_path / "run", config)
    v = np.zeros((2, 32, 32, 1), np.float32)
    assert np.isfinite(read_trained(folder).latent_mean(v)).all()
