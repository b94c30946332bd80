"""The record of a run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class History:
    """Every scalar of every iteration, and the evaluations in between."""

    def __init__(self) -> None:
        self._chunks: list[dict[str, np.ndarray]] = []
        self._evaluations: list[dict[str, float]] = []
        self._length = 0

    def append(self, infos: Mapping[str, np.ndarray]) -> None:
        """Adds consecutive iterations."""
        self._chunks.append(dict(infos))
        self._length += _length_of(infos)

    def add_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds what callbacks measured after iteration `step`."""
        if self._evaluations and self._evaluations[-1]["step"] == step:
            self._evaluations[-1].update(metrics)
        else:
            self._evaluations.append({"step": step, **metrics})

    def scalars(self) -> dict[str, np.ndarray]:
        """`[iterations]` for each scalar."""
        if len(self._chunks) > 1:
            names = dict.fromkeys(name for chunk in self._chunks for name in chunk)
            merged = {
                name: np.concatenate([_column(chunk, name) for chunk in self._chunks]) for name in names
            }
            self._chunks = [merged]  # kept, or each checkpoint would join all chunks again
        return dict(self._chunks[0]) if self._chunks else {}

    def mean(self, start: int, stop: int) -> dict[str, float]:
        """The mean of each scalar over iterations `start .. stop - 1`."""
        chunks: list[dict[str, np.ndarray]] = []
        position = self._length
        for chunk in reversed(self._chunks):  # a window is recent: the whole record need not be merged
            if position <= start:
                break
            chunks.insert(0, chunk)
            position -= _length_of(chunk)
        window = slice(max(0, start - position), stop - position)
        names = chunks[-1] if chunks else {}
        return {
            name: float(np.mean(np.concatenate([_column(chunk, name) for chunk in chunks])[window]))
            for name in names
        }

    def evaluations(self) -> list[dict[str, float]]:
        """One row an evaluation, with its `step`."""
        return [dict(row) for row in self._evaluations]

    def restore(self, scalars: Mapping[str, np.ndarray], evaluations: list[dict[str, float]]) -> None:
        """Continues a record."""
        self._chunks = [dict(scalars)] if scalars else []
        self._length = _length_of(scalars)
        self._evaluations = [dict(row) for row in evaluations]


def _column(chunk: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A scalar over some iterations: NaN in those of another method, before the run went on with this one."""
    return chunk[name] if name in chunk else np.full(_length_of(chunk), np.nan, np.float32)


def _length_of(chunk: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(chunk.values()))) if chunk else 0
