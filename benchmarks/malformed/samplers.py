"""Malformed calls of `bism_jax.samplers`."""

from __future__ import annotations

import jax.numpy as jnp

from benchmarks.malformed.campaign import Call
from bism_jax import samplers

PACKAGE = "bism_jax.samplers"
EXEMPT = {"AnnealedSamples": "a result"}


def calls() -> dict[str, Call]:
    """One valid call for each public name."""
    return {
        "interpolate": Call(
            samplers.interpolate,
            {"start": jnp.ones(3), "stop": jnp.zeros(3), "num": 4},
            {"num": "count"},
        ),
    }
