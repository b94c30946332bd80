"""One run of a comparison: training with a learning curve, kept on disk."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import bism_jax
from bism_jax.training import Snapshot
from experiments.comparison.setting import Measure, Setting
from experiments.run_folder import read_json

_EMA_DECAY = 0.999
_NUM_DRAWS = 20


class Record(NamedTuple):
    """A finished run.

    Attributes:
        method: the contender's name.
        seed: of parameters, noise and data order.
        curve: a row for each evaluation: step, seconds of training so far, and the measures.
        metrics: of the final theta, with the suffix `_ema` of its moving average, and with `_averaged` over
            draws from q(theta); `ms_per_iteration` and `seconds` of training, the latter with compilation.
    """

    method: str
    seed: int
    curve: list[dict[str, float]]
    metrics: dict[str, float]


class LearningCurve:
    """A callback that measures a run and the time that training, not measuring, takes."""

    def __init__(self, measure: Measure, every: int) -> None:
        self.every = every
        self.rows: list[dict[str, float]] = []
        self.intervals: list[tuple[int, float]] = []
        self._measure, self._last_step = measure, 0
        self._resumed = time.perf_counter()

    def __call__(self, snapshot: Snapshot) -> Mapping[str, float]:
        """Adds a row."""
        seconds = time.perf_counter() - self._resumed
        self.intervals.append((snapshot.step - self._last_step, seconds))
        measured = dict(self._measure(snapshot.theta))
        self.rows.append({"step": snapshot.step, **measured})
        self._last_step, self._resumed = snapshot.step, time.perf_counter()
        return measured

    def milliseconds(self) -> float:
        """The median over intervals, of which the first holds the compilation."""
        intervals = self.intervals[1:] or self.intervals
        return 1e3 * float(np.median([seconds / steps for steps, seconds in intervals]))


def run_contender(setting: Setting, name: str, seed: int, num_steps: int, every: int, folder: Path) -> None:
    """Trains one contender from one seed, unless its record is in the folder."""
    path = _path(folder, name, seed)
    if path.exists():
        return
    contender = setting.contenders[name]
    curve = LearningCurve(setting.measure_curve, every)
    result = bism_jax.fit(
        setting.model,
        contender.posterior_fn,
        setting.splits.train,
        method=contender.method,
        num_steps=num_steps,
        rng_key=seed,
        ema_decay=_EMA_DECAY,
        callbacks=[curve],
    )
    metrics = dict(setting.measure_end(result.theta))
    metrics |= {f"{key}_ema": value for key, value in setting.measure_curve(result.theta_ema).items()}
    metrics |= _averaged(setting, contender.method, result.phi, seed)
    milliseconds = curve.milliseconds()
    metrics |= {
        "ms_per_iteration": milliseconds,
        "seconds": sum(seconds for _, seconds in curve.intervals),
    }
    rows = [{**row, "seconds": 1e-3 * milliseconds * row["step"]} for row in curve.rows]
    _write(path, Record(name, seed, rows, metrics), result.theta)
    shown = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items())
    print(f"{setting.name}, {name}, seed {seed}: {shown}", flush=True)


def read_records(setting: Setting, folder: Path) -> list[Record]:
    """All finished runs, in the order of the contenders and of their seeds."""
    records = [_read(path) for path in sorted(folder.glob("*/seed-*.json"))]
    order = list(setting.contenders)
    known = [record for record in records if record.method in order]
    return sorted(known, key=lambda record: (order.index(record.method), record.seed))


def _read(path: Path) -> Record:
    found = read_json(path)
    if found.keys() != set(Record._fields):
        raise ValueError(f"{path} must have the entries {Record._fields}; delete it to train that run again.")
    return Record(**found)


def read_theta(setting: Setting, folder: Path, record: Record) -> Any:
    """The final parameters of a run."""
    shapes = jax.eval_shape(
        lambda v: setting.model.init(jax.random.key(0), v, method="free_energy"), setting.splits.test
    )
    with np.load(_path(folder, record.method, record.seed).with_suffix(".npz")) as archive:
        leaves = [archive[name] for name in archive.files]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _averaged(setting: Setting, method: Any, phi: Any, seed: int) -> dict[str, float]:
    """The measures averaged over parameters drawn from q(theta), for a method that learns one."""
    if not hasattr(method, "draw_theta"):
        return {}
    draws = method.draw_theta(phi, jax.random.key(seed), _NUM_DRAWS)
    rows = [
        setting.measure_curve(jax.tree.map(lambda leaf, index=index: leaf[index], draws))
        for index in range(_NUM_DRAWS)
    ]
    return {f"{key}_averaged": float(np.mean([row[key] for row in rows])) for key in rows[0]}


def _write(path: Path, record: Record, theta: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path.with_suffix(".npz"), *[np.asarray(leaf) for leaf in jax.tree.leaves(theta)])
    # Last and at once, since the file says that the run is finished.
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(record._asdict(), indent=1) + "\n")
    os.replace(temporary, path)


def _path(folder: Path, name: str, seed: int) -> Path:
    return folder / re.sub(r"[^a-z0-9]+", "-", name.lower()) / f"seed-{seed}.json"
