"""The malformed values of each kind of argument."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Bad:
    """A malformed value: a name, and what makes it of the valid one."""

    name: str
    make: Callable[[Any], Any]


def scratch_folder() -> Path:
    """A folder of its own for each call, gone when the program ends."""
    folder = tempfile.mkdtemp(prefix="malformed")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


class _TrainState(NamedTuple):
    """Like the state of a training method."""

    theta: Any
    phi: Any
    iteration: Any


def _same(**values: Any) -> list[Bad]:
    """Values that do not depend on the valid one."""
    return [Bad(name, functools.partial(_keep, value)) for name, value in values.items()]


def _keep(value: Any, valid: Any) -> Any:
    return value


def _fit_result(params: Any) -> Any:
    from bism_jax import FitResult

    rest: Any = dict.fromkeys(FitResult._fields[2:])
    return FitResult(params, params, **rest)


def _grown(params: Any) -> Any:
    """One more entry along the last axis of every leaf that has one."""
    return jax.tree.map(
        lambda leaf: jnp.concatenate([leaf, leaf[..., -1:]], -1) if jnp.ndim(leaf) else leaf, params
    )


def _spoilt(params: Any, value: float) -> Any:
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, [*leaves[:-1], jnp.full_like(leaves[-1], value)])


def _without_first(params: Any) -> Any:
    """Without one of the innermost entries."""
    if isinstance(params, dict) and len(params) == 1:
        ((key, inner),) = params.items()
        return {key: _without_first(inner)}
    return dict(list(params.items())[1:]) if isinstance(params, dict) else {}


def _unwrapped(params: Any) -> Any:
    return params["params"] if isinstance(params, dict) and "params" in params else {"params": params}


def _with_value(rows: Any, value: float) -> np.ndarray:
    rows = np.array(rows)
    rows.reshape(-1)[-1] = value
    return rows


_KEY = jax.random.key(0)
_PARAMS = [
    *_same(none=None, text="theta", number=3.0, empty={}, text_leaf={"w": "a"}, function=abs),
    Bad("a FitResult", _fit_result),
    Bad("a pair (theta, phi)", lambda params: (params, params)),
    Bad("a state", lambda params: _TrainState(params, params, 0)),
    Bad(
        "of another model",
        lambda params: {"params": {"Dense_7": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}},
    ),
    Bad("of other shapes", _grown),
    Bad("NaN", lambda params: _spoilt(params, float("nan"))),
    Bad("infinite", lambda params: _spoilt(params, float("inf"))),
    Bad("one missing", _without_first),
    Bad("without or with params", _unwrapped),
    Bad("integers", lambda params: jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), int), params)),
    Bad("complex", lambda params: jax.tree.map(lambda leaf: leaf * 1j, params)),
    Bad(
        "shapes",
        lambda params: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params),
    ),
]
# Rows of numbers of any real dtype: features and samples, of which integers are a valid choice.
_NUMBERS = [
    *_same(none=None, text="data", number=3.0, scalar=np.float32(3), function=abs, empty=[], a_dict={"v": 1}),
    Bad("no rows", lambda rows: rows[:0]),
    Bad("one axis more", lambda rows: rows[..., None]),
    Bad("NaN", lambda rows: _with_value(rows, np.nan)),
    Bad("infinite", lambda rows: _with_value(rows, -np.inf)),
    Bad("strings", lambda rows: np.asarray(rows).astype(str)),
    Bad("complex", lambda rows: np.asarray(rows) * 1j),
    Bad("objects", lambda rows: np.asarray(rows).astype(object)),
    Bad("keys", lambda rows: jax.random.split(_KEY, len(rows))),
    Bad("masked", lambda rows: np.ma.masked_greater(np.asarray(rows), np.median(rows))),
    Bad("ragged", lambda rows: [[1.0], [1.0, 2.0]]),
]
_SHAPED = [
    Bad("one axis less", lambda rows: rows[0]),
    Bad("one column more", lambda rows: np.concatenate([rows, rows[..., -1:]], -1)),
    Bad("no columns", lambda rows: rows[..., :0]),
]
_NO_NUMBERS = _same(
    none=None, text="3", true=True, nan=float("nan"), pair=np.ones(2), infinite=float("inf"), imaginary=1j
)
_NO_COUNTS = [*_NO_NUMBERS, *_same(negative=-1, fraction=2.5, float=2.0)]

MALFORMED: dict[str, list[Bad]] = {
    "key": [
        *_same(
            none=None, seed=0, text="key", number=0.5, floats=np.zeros(2, np.float32), function=jax.random.key
        ),
        *_same(keys=jax.random.split(_KEY, 2), no_keys=jax.random.split(_KEY, 2)[:0]),
        *_same(raw_keys=jax.random.split(jax.random.PRNGKey(0), 3), bits=np.zeros(3, np.uint32)),
    ],
    "theta": _PARAMS,
    "phi": _PARAMS,
    # [rows, *visible] of a model: floating, of the model's shape.
    "rows": [
        *_NUMBERS,
        *_SHAPED,
        Bad("integers", lambda rows: np.asarray(rows).astype(int)),
        Bad("booleans", lambda rows: np.asarray(rows) > 0),
    ],
    "numbers": _NUMBERS,
    "features": [*_NUMBERS, *_SHAPED],
    "count": [*_NO_COUNTS, *_same(zero=0, huge=10**12)],
    "count_from_0": [*_NO_COUNTS, *_same(huge=10**12)],
    # May exceed the number of rows.
    "batch_size": [*_NO_COUNTS, *_same(zero=0)],
    "positive": [*_NO_NUMBERS, *_same(zero=0, negative=-0.5, minus_infinite=-float("inf"), a_list=[0.1])],
    "non_negative": [*_NO_NUMBERS, *_same(negative=-0.5, a_list=[0.1])],
    # A pytree of floating [chains, ...], of whatever shape.
    "states": [
        *(bad for bad in _NUMBERS if bad.name not in {"one axis more", "a_dict"}),
        Bad("integers", lambda rows: np.asarray(rows).astype(int)),
        Bad("booleans", lambda rows: np.asarray(rows) > 0),
    ],
    "mask": [
        *_same(none=None, text="3", number=1, true=True),
        Bad("numbers", lambda mask: np.asarray(mask) * 1.0),
        Bad("integers", lambda mask: np.asarray(mask).astype(int)),
        Bad("no rows", lambda mask: mask[:0]),
        Bad("one axis less", lambda mask: mask[0]),
        Bad("one axis more", lambda mask: mask[..., None]),
        Bad("one column more", lambda mask: np.concatenate([mask, mask[..., -1:]], -1)),
    ],
    "widths": _same(
        none=None, text="23", number=3, negative=(-1,), zero=(0, 2), fraction=(1.5,), true=(True,)
    ),
    "dtype": _same(text="magic", number=3, integers=int, booleans=bool, complex=complex, keys=_KEY.dtype),
    # A mapping from names, of which what it maps to is for the special calls.
    "mapping": _same(none=None, text="3", number=3, a_list=[1], empty={}, array=np.ones(2)),
    "names": _same(none=None, text="ab", number=3, array=np.float32(1), no_names=["c"] * 7),
    "interval": _same(
        none=None,
        text="ab",
        number=3,
        one=(1,),
        nan=(0, float("nan")),
        reverse=(1, 0),
        equal=(1, 1),
        texts=("a", "b"),
    ),
    "box": _same(
        none=None,
        text="ab",
        number=3,
        one=((0, 1),),
        flat=(0, 1),
        nan=((0, float("nan")), (0, 1)),
        reverse=((1, 0), (0, 1)),
    ),
    "steps": [
        *_same(none=None, text="ab", number=3, empty=[]),
        Bad("one more", lambda steps: np.append(steps, 9)),
        Bad("NaN", lambda steps: steps * np.nan),
        Bad("strings", lambda steps: steps.astype(str)),
        Bad("one axis more", lambda steps: steps[:, None]),
    ],
    # Any finite number.
    "number": [
        *_same(text="3", true=True, nan=float("nan"), pair=np.ones(2), imaginary=1j),
        Bad("a list", lambda valid: [0.0]),
    ],
    "counts": [
        *_same(
            none=None,
            text="3",
            number=3,
            empty=(),
            negative=(-1, 1),
            fraction=(0.5,),
            true=(True,),
            array=np.ones(2),
        )
    ],
    "labels": [
        *_same(none=None, text="3", scalar=np.int64(1), function=abs),
        Bad("no rows", lambda labels: labels[:0]),
        Bad("one row less", lambda labels: labels[:-1]),
        Bad("one axis more", lambda labels: labels[:, None]),
        Bad("fractions", lambda labels: labels + 0.25),
        Bad("NaN", lambda labels: np.where(labels > 0, np.nan, 0)),
        Bad("one class", np.zeros_like),
    ],
    "fraction": [*_NO_NUMBERS, *_same(negative=-0.5, one=1.0, two=2)],
    "choice": _same(none=None, unknown="magic", number=3, a_list=["magic"], empty=""),
    "flag": _same(none=None, one=1, text="yes", array=np.ones(2, bool)),
    # A function: what cannot be called; what it returns is for the special calls.
    "function": [*_same(none=None, number=3, text="fn", a_class=dict, no_arguments=lambda: 0.0)],
    "model": [
        *_same(none=None, number=3, text="GRBM", no_arguments=lambda: 0.0, params={"w": np.ones(2)}),
        Bad("its class", type),
    ],
    "path": _same(none=None, number=3, a_list=["a"], empty=""),
    "text": _same(none=None, number=3, a_list=["a"]),
    # Values with methods: strategies, objectives, optimisers, callbacks and the like.
    "instance": [*_same(none=None, number=3, text="magic", a_dict={}), Bad("its class", type)],
}
