"""The paper's model of MNIST, trained for as long as there is time: N = 0, then N = 1."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator.arrays import read_arrays, scikit_digits
from benchmarks.accelerator.cases import Case, Context, UnavailableError
from benchmarks.accelerator.paper_networks import Setting, configuration, product_precision
from benchmarks.accelerator.rows import replace_text
from benchmarks.accelerator.training import train_until
from bism_jax.data import ImageSplits, LabelledImages
from bism_jax.evaluation import class_coverage, class_probabilities, train_image_classifier
from experiments.imaging import pictures
from experiments.imaging.config import ImageConfig, SamplingConfig, from_json
from experiments.imaging.networks import make_energy, make_method, make_posterior
from experiments.imaging.probes import probe_accuracies
from experiments.imaging.trained import TrainedModel, read_trained, write_weights

_NUM_CHAINS, _NUM_PROBE_IMAGES, _NUM_TEST_IMAGES = 100, 10_000, 2_000
_TRAINING = 0.6  # of the time of a depth; the rest goes to samples and their measures
_COMPILATION = 60.0  # seconds, where it was not measured
_UNKNOWN_MS = 50.0  # an iteration, likewise


def cases(context: Context) -> list[Case]:
    """Training, samples and probe, for each depth."""
    return [
        Case(f"N = {depth}, {name}", functools.partial(run, context, depth))
        for depth in _depths(context)
        for name, run in (("training", _train), ("samples", _sample), ("probe", _probe))
    ]


def _depths(context: Context) -> tuple[int, ...]:
    return (1,) if context.options.quick else (0, 1)


@functools.cache
def _images(path: Path | None, quick: bool) -> ImageSplits:
    if path is not None:
        return read_arrays(path)
    if quick:
        return scikit_digits()
    raise UnavailableError("no images: pass --arrays FILE, made by python -m benchmarks.accelerator.arrays")


def _folder(context: Context, depth: int) -> Path:
    return context.options.work / f"paper-N{depth}"


def _train(context: Context, depth: int) -> dict[str, Any]:
    """`fit` with a cosine schedule over as many iterations as there should be time for."""
    splits = _images(context.options.arrays, context.options.quick)
    depths = _depths(context)
    share = 1 / (len(depths) - depths.index(depth))
    deadline = time.time() + _TRAINING * share * context.seconds_left
    config = _configuration(context, depth, deadline - time.time())
    folder = _folder(context, depth)
    start = time.perf_counter()
    with product_precision("TF32"):
        trained = train_until(
            deadline,
            folder / "checkpoints",
            make_energy(config),
            make_posterior(config),
            splits.train.images,
            config.iterations,
            method=make_method(config),
            batch_size=config.batch_size,
            rng_key=config.seed,
        )
    write_weights(folder, trained.theta_ema, trained.phi)
    seconds = time.perf_counter() - start
    return {**trained.columns, "seconds": seconds, "bfloat16": config.network.bfloat16}


def _configuration(context: Context, depth: int, seconds: float) -> ImageConfig:
    """Kept in the folder, since a schedule that goes on must be the same, and `read_trained` asks for it."""
    folder = _folder(context, depth)
    file = folder / "config.json"
    if not file.exists():
        precision = _fastest(context, depth)
        config = configuration(Setting("mnist", depth, precision), context.options.quick)
        config = replace(config, iterations=_count(context, depth, precision, seconds))
        if context.options.quick:
            config = replace(config, sampling=SamplingConfig(0.1, 5, 20, 5))
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(file, json.dumps({"experiment": "images", **asdict(config)}, indent=2) + "\n")
    return from_json(json.loads(file.read_text()))


def _measured(context: Context, depth: int, precision: str, column: str) -> float | None:
    return context.value("networks", Setting("mnist", depth, precision).name, column)


def _fastest(context: Context, depth: int) -> str:
    """Of bfloat16 and JAX's default, by what was measured; float32 is no faster than the default."""
    bfloat16 = _measured(context, depth, "bfloat16", "ms")
    others = [_measured(context, depth, name, "ms") for name in ("TF32", "float32")]
    other = next((ms for ms in others if ms is not None), None)
    return "bfloat16" if bfloat16 is not None and other is not None and bfloat16 < other else "TF32"


def _count(context: Context, depth: int, precision: str, seconds: float) -> int:
    if context.options.quick:
        return 6
    compilation = _measured(context, depth, precision, "compile_s") or _COMPILATION
    ms = _measured(context, depth, precision, "ms") or _UNKNOWN_MS
    return int(np.clip(0.8e3 * (seconds - compilation) / ms, 100, 100_000))


def _trained(context: Context, depth: int) -> TrainedModel:
    try:
        return read_trained(_folder(context, depth))
    except FileNotFoundError as error:
        raise UnavailableError("there is no trained model") from error


def _sample(context: Context, depth: int) -> dict[str, Any]:
    """Samples from noise, and what a classifier, trained on the spot, says of them."""
    model = _trained(context, depth)
    num_chains = 4 if context.options.quick else _NUM_CHAINS
    start = time.perf_counter()
    with product_precision("TF32"):
        samples = pictures.clip(pictures.draw_samples(model, jax.random.key(0), num_chains).x)
    seconds = time.perf_counter() - start
    test = _rows(_images(context.options.arrays, context.options.quick).test, _NUM_TEST_IMAGES)
    classifier = _classifier(context.options.arrays, context.options.quick)
    predicted = class_probabilities(classifier, test.images).argmax(axis=1)
    coverage = class_coverage(class_probabilities(classifier, samples))
    return {
        "seconds": seconds,
        "classifier_accuracy": float((predicted == test.labels).mean()),
        "confident_samples": coverage.confident_fraction,
        "classes_among_them": coverage.num_classes,
        "picture": _draw(samples, context.options.output / f"samples-N{depth}.png"),
    }


def _rows(images: LabelledImages, number: int) -> LabelledImages:
    assert images.labels is not None  # of digits
    return LabelledImages(images.images[:number], images.labels[:number])


def _draw(samples: np.ndarray, path: Path) -> str:
    try:
        pictures.save_samples(samples, path)
    except ImportError:
        np.savez_compressed(path.with_suffix(".npz"), images=np.round(255 * samples).astype(np.uint8))
        return f"{path.with_suffix('.npz').name}: an array, since matplotlib is missing"
    return path.name


@functools.cache
def _classifier(path: Path | None, quick: bool) -> Any:
    images, labels = _images(path, quick).train
    assert labels is not None  # of digits
    return train_image_classifier(images, labels, jax.random.key(0), num_epochs=2 if quick else 3)


def _probe(context: Context, depth: int) -> dict[str, Any]:
    """A linear classifier on the latents' means, and on as many principal components."""
    model = _trained(context, depth)
    splits = _images(context.options.arrays, context.options.quick)
    train = _rows(splits.train, 300 if context.options.quick else _NUM_PROBE_IMAGES)
    try:
        accuracies = probe_accuracies(model, train, splits.test)
    except ImportError as error:
        raise UnavailableError(str(error)) from error
    on_latents, on_components = accuracies.values()
    return {
        "latents": model.config.network.num_hidden,
        "probe": on_latents,
        "principal_components": on_components,
    }
