"""Measures a run of experiments.images: the quality of its samples, its latents and its energies.

Distances between samples and test images are taken on features: of a classifier that is trained on the spot
for the grey sets, of a CIFAR-10 residual network (DATA/features) for the others, and of Inception-v3 where
its weights are given. Only a distance on the last is called FID.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from bism_jax import checks, plotting
from bism_jax.data import LabelledImages, data_directory, load_image_split
from bism_jax.evaluation import (
    class_coverage,
    class_probabilities,
    distance_label,
    extract_features,
    frechet_distance,
    kernel_distance,
    precision_recall,
    train_image_classifier,
)
from bism_jax.models import load_cifar_resnet, load_inception_v3
from experiments.imaging.probes import out_of_distribution, probe_accuracies
from experiments.imaging.trained import TrainedModel, read_trained
from experiments.launch.experiment import run_experiment
from experiments.run_folder import RunFolder, print_table
from experiments.sample import many_samples

_RESNET = "cifar10_resnet20-12fca82f.npz"


@dataclass(frozen=True)
class Config:
    """Measure a run.

    Attributes:
        run: the run folder.
        num_samples: samples, and test images that they are compared with.
        num_probe_images: training images of the linear probes.
        inception: an Inception-v3 weights file, for the true FID.
        batch_size: chains at a time.
        seed: of the chains.
        data_dir: the data directory; the environment's BISM_JAX_DATA where it is not given.
        output: the folder to write to; None is RUN/evaluation.
        progress: show a bar even where there is no terminal.
    """

    run: Path
    num_samples: int = 1_000
    num_probe_images: int = 10_000
    inception: Path | None = None
    batch_size: int = 100
    seed: int = 0
    data_dir: Path | None = None
    output: Path | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_probe_images", "batch_size"):
            checks.positive_int(name, getattr(self, name))
        checks.seed("seed", self.seed)


def run(config: Config) -> dict[str, float]:
    """Measures, writes `metrics.json` and pictures, and returns the numbers."""
    model = read_trained(config.run)
    folder = RunFolder("evaluate", config, config.output or config.run / "evaluation")
    train = load_image_split(model.config.data, "train", config.data_dir)
    test = load_image_split(model.config.data, "test", config.data_dir)
    samples = _samples(model, config, folder.path)
    metrics = _sample_quality(model, config, train, test, samples, folder.path)
    if model.posterior is not None and train.labels is not None:
        rows = slice(config.num_probe_images)
        some = LabelledImages(train.images[rows], train.labels[rows])
        metrics |= probe_accuracies(model, some, test)
    metrics |= out_of_distribution(model, test.images[: config.num_samples], config.data_dir)
    folder.write_metrics(metrics)
    print_table(f"{model.config.data}, {model.config.training.name}, {config.run}", metrics)
    print(f"\nnumbers and pictures: {folder.path}")
    return metrics


def _samples(model: TrainedModel, config: Config, folder: Path) -> np.ndarray:
    """New samples, or those that an interrupted evaluation left."""
    file = folder / f"samples-{config.seed}-{config.num_samples}.npz"
    if not file.exists():
        images = many_samples(model, config.seed, config.num_samples, config.batch_size, config.progress)
        np.savez_compressed(file, images=images)
    with np.load(file) as archive:
        return archive["images"]


def _sample_quality(
    model: TrainedModel,
    config: Config,
    train: LabelledImages,
    test: LabelledImages,
    samples: np.ndarray,
    folder: Path,
) -> dict[str, float]:
    metrics: dict[str, float] = {}
    real = test.images[: len(samples)]
    classifier = _classifier(model, config, train)
    if test.labels is not None:
        predicted = class_probabilities(classifier, test.images).argmax(axis=1)
        metrics["classifier test accuracy"] = float((predicted == test.labels).mean())
        probabilities = class_probabilities(classifier, samples)
        coverage = class_coverage(probabilities)
        metrics["confident samples"] = coverage.confident_fraction
        metrics["classes among them"] = float(coverage.num_classes)
        _draw_by_class(samples, probabilities, folder / "samples_by_class.png")
    feature_fns = [classifier]
    if config.inception is not None:
        feature_fns.append(load_inception_v3(config.inception))
    for feature_fn in feature_fns:
        metrics |= _distances(feature_fn, real, samples)
    return metrics


def _distances(feature_fn: Any, real: np.ndarray, samples: np.ndarray) -> dict[str, float]:
    x, y = (extract_features(feature_fn, images) for images in (real, samples))
    subset_size = min(len(samples) // 2, 500)
    kernel = kernel_distance(x, y, jax.random.key(0), subset_size=subset_size)
    overlap = precision_recall(x, y)
    return {
        distance_label("Frechet distance", feature_fn.name): frechet_distance(x, y),
        distance_label("kernel distance", feature_fn.name): kernel.value,
        f"precision ({feature_fn.name})": overlap.precision,
        f"recall ({feature_fn.name})": overlap.recall,
    }


def _classifier(model: TrainedModel, config: Config, train: LabelledImages) -> Any:
    if model.config.image_shape[-1] == 3:
        return load_cifar_resnet(data_directory(config.data_dir) / "features" / _RESNET)
    labels: Any = train.labels  # which the grey sets have
    return train_image_classifier(train.images, labels, jax.random.key(0))


def _draw_by_class(samples: np.ndarray, probabilities: np.ndarray, path: Path) -> None:
    """The ten surest samples of each class, a row each."""
    rows, blank = [], np.zeros_like(samples[:1])
    for label in range(probabilities.shape[1]):
        of_class = np.flatnonzero(probabilities.argmax(axis=1) == label)
        surest = of_class[np.argsort(-probabilities[of_class, label])][:10]
        rows.append(np.concatenate([samples[surest], np.repeat(blank, 10 - len(surest), axis=0)]))
    labels = [str(label) for label in range(len(rows))]
    figure = plotting.plot_image_grid(np.concatenate(rows), 10, "The surest samples of each class", labels)
    plotting.save(figure, path)


if __name__ == "__main__":
    run_experiment(run, lambda: tyro.cli(Config, description=__doc__))
