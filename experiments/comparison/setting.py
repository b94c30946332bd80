"""What is compared: a data set with its model, its contenders and the measures of a fit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bism_jax.data import Splits, checkerboard_splits, load_frey_face
from bism_jax.evaluation import annealed_importance_sampling, log_likelihood, score_matching_objective
from bism_jax.models import GRBM
from experiments.comparison.contenders import Contender, checkerboard_contenders, frey_face_contenders

Measure = Callable[[Any], Mapping[str, float]]


@dataclass(frozen=True)
class Setting:
    """A comparison on one data set.

    Attributes:
        name: of the data set.
        model: the energy that all contenders train.
        splits: the data.
        contenders: by their names in the table.
        num_steps: iterations a run, as in the paper.
        num_seeds: runs a contender.
        measure_curve: of theta, at each point of a learning curve.
        measure_end: of the final theta.
    """

    name: str
    model: GRBM
    splits: Splits
    contenders: Mapping[str, Contender]
    num_steps: int
    num_seeds: int
    measure_curve: Measure
    measure_end: Measure


def checkerboard_setting() -> Setting:
    """The checkerboard, every method; exact test log-likelihood and score-matching objective."""
    splits, model = checkerboard_splits(jax.random.key(0)), GRBM(4)

    def measure(theta: Any) -> dict[str, float]:
        return {
            "log_likelihood": float(log_likelihood(model, theta, splits.test).mean()),
            "sm_objective": float(score_matching_objective(model, theta, splits.test)),
        }

    contenders = checkerboard_contenders(len(splits.train))
    return Setting("checkerboard", model, splits, contenders, 100_000, 10, measure, measure)


def frey_face_setting(data_dir: Path | None) -> Setting:
    """Frey face, DSM against bi-level DSM; log-likelihood by annealed importance sampling at the end."""
    splits, model = load_frey_face(data_dir), GRBM(400)
    measure_curve = functools.partial(_measure_frey_face, model, splits)

    def measure_end(theta: Any) -> dict[str, float]:
        # The paper's 2,000 x 2,000 costs as much, but its weights are too uneven on these models.
        ais = annealed_importance_sampling(
            model, theta, jax.random.key(0), num_particles=400, num_temperatures=10_000
        )
        mean = float(log_likelihood(model, theta, splits.test, log_partition=ais.log_partition).mean())
        return {
            "log_likelihood": mean,
            "log_partition": float(ais.log_partition),
            "log_partition_lower": float(ais.lower),
            "log_partition_upper": float(ais.upper),
            "ais_effective_fraction": float(ais.effective_sample_size) / 400,
            **measure_curve(theta),
        }

    contenders = frey_face_contenders(400)
    return Setting("frey_face", model, splits, contenders, 20_000, 2, measure_curve, measure_end)


def _measure_frey_face(model: GRBM, splits: Splits, theta: Any) -> dict[str, float]:
    mean_h = model.apply(theta, splits.test, method=lambda module, v: module.posterior(v).mean)
    reconstruction = np.asarray(model.apply(theta, mean_h, method="mean_v"))
    return {
        "sm_objective": float(score_matching_objective(model, theta, splits.test)),
        "reconstruction_error": float(np.sqrt(np.mean((reconstruction - splits.test) ** 2))),
    }
