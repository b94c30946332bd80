"""`import bism_jax` loads what `fit` needs and nothing else."""

import subprocess
import sys

import pytest

# NumPyro, orbax and SciPy were half of the CPU time of the import, and NNX is a sixth of JAX and Flax.
HEAVY = {"flax.nnx", "matplotlib", "numpyro", "orbax", "scipy", "sklearn", "tensorflow_datasets", "tqdm"}

FIT = """
import jax.numpy as jnp
import bism_jax
params = {"W": jnp.ones((3, 2))}, None
bism_jax.fit(
    lambda theta, v: ((v @ theta["W"]) ** 2).sum(-1) + (v**2).sum(-1), None, jnp.ones((4, 3)).at[0].set(0.5),
    method=bism_jax.ScoreMatching(bism_jax.DSM(0.3)), init_params=params, num_steps=1, batch_size=2,
)
"""


def loaded(program):
    """Those of the heavy modules, and of our own, that a new process has after the program."""
    report = "import sys\nprint(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", f"{program}\n{report}"], check=True, capture_output=True, text=True
    )
    return {name for name in found.stdout.split() if name in HEAVY or name.startswith("bism_jax")}


def test_the_import_loads_nothing_heavy_and_no_model():
    names = loaded("import bism_jax")
    assert names & HEAVY == set()
    rooms = {"bism_jax.models", "bism_jax.evaluation", "bism_jax.data", "bism_jax.plotting"}
    assert names & rooms == set()
    assert {"bism_jax.methods", "bism_jax.objectives", "bism_jax.training"} <= names


@pytest.mark.parametrize("room", ["methods", "objectives", "training", "hypergradient", "samplers"])
def test_no_room_below_the_models_loads_numpyro(room):
    assert "numpyro" not in loaded(f"import bism_jax.{room}")


def test_a_run_without_a_posterior_or_checkpoints_loads_its_bar_alone():
    assert loaded(FIT) & HEAVY == {"tqdm"}


def test_what_is_heavy_is_found_where_it_is_loaded():
    assert loaded("import bism_jax.models") & HEAVY >= {"numpyro", "scipy"}
