"""The golden values themselves: the program that writes them is right, and the file is what it writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import golden
from tests.golden_values import formulas
from tests.golden_values.cases import Bilevel, compute, labels, latent_noise, optimizer_spec
from tests.golden_values.descent import arrays
from tests.golden_values.inputs import INPUTS

ROOT = Path(__file__).parent.parent
NAMES = ("J", "inner_loss_along_path", "phi_N", "hypergrad", "direct_grad", "dJ_dphi")
THETA, PHI = arrays(INPUTS["theta"]), arrays(INPUTS["phi0"])
V, NOISE, TAU = np.asarray(INPUTS["v"]), latent_noise("inner"), 0.5


def flat(tree):
    """The leaves of dicts of arrays in one row, by name."""
    if isinstance(tree, dict):
        return np.concatenate([flat(tree[name]) for name in sorted(tree)])
    return np.ravel(tree)


def close(found, expected, relative):
    found, expected = flat(found), flat(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * np.abs(expected).max() + 1e-12)


def finite_differences(fn, tree, step=1e-5):
    """Of fourth order: Adam's first steps bend too much for the second."""

    def entry(name, index, distance):
        moved = {key: value.copy() for key, value in tree.items()}
        moved[name][index] += distance
        return fn(moved)

    def derivative(name, index):
        near, far = (entry(name, index, k * step) - entry(name, index, -k * step) for k in (1, 2))
        return (8 * near - far) / (12 * step)

    return {
        name: np.array([derivative(name, index) for index in np.ndindex(value.shape)])
        for name, value in tree.items()
    }


def test_the_file_is_what_the_program_writes():
    """Up to the last digits, in which mathematical libraries differ."""
    saved = golden.load()
    assert saved["inputs"] == INPUTS
    for case, label in zip(saved["cases"], labels(), strict=True):
        assert case.keys() == {*label, *NAMES} and label.items() <= case.items()
        values = compute(label)
        for name in NAMES:
            close(case[name], values[name], 1e-12)


def test_the_program_needs_numpy_alone():
    script = (
        "import sys; import tests.golden_values.write; "
        "sys.exit(any(name.split('.')[0] in ('jax', 'bism_jax', 'torch') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_the_lower_gradient_is_that_of_the_lower_loss():
    expected = formulas.complex_step(lambda phi: formulas.lower_loss(THETA, phi, V, NOISE, TAU), PHI)
    close(formulas.lower_gradient(THETA, PHI, V, NOISE, TAU), expected, 1e-13)


def test_the_score_is_the_gradient_of_the_log_ratio_with_h_held():
    h = formulas.latents(PHI, V, NOISE, TAU)
    expected = formulas.complex_step(lambda v: formulas.log_ratio(THETA, PHI, v["v"], h).sum(), {"v": V})
    close(formulas.score(THETA, PHI, V, h), expected["v"], 1e-13)


@pytest.mark.parametrize("moving", [False, True])
def test_the_jacobian_is_the_derivative_of_the_score(moving):
    """Column by column, with h = h(v) in it where h moves."""
    held = formulas.latents(PHI, V, NOISE, TAU)

    def score_entry(v, row, i):
        h = formulas.latents(PHI, v, NOISE, TAU) if moving else held
        return formulas.score(THETA, PHI, v, h)[row, i]

    found = formulas.score_jacobian(THETA, PHI, V, held, TAU, moving)
    for row, i in np.ndindex(V.shape):
        gradient = formulas.complex_step(lambda v, at=(row, i): score_entry(v["v"], *at), {"v": V})["v"]
        close(found[row, i], gradient[row], 1e-13)


def test_the_two_forms_of_the_latents_differ():
    form_of = {case["latents"]: case for case in golden.load()["cases"] if case["objective"] == "SSM"}
    assert abs(form_of["fixed"]["J"] - form_of["moving"]["J"]) > 0.01


@pytest.mark.parametrize("label", [*labels()], ids=lambda label: "-".join(map(str, label.values())))
def test_hypergradients_agree_with_finite_differences(label):
    case = next(case for case in golden.load()["cases"] if label.items() <= case.items())
    problem = Bilevel(label["objective"], label["latents"], label["tau"])
    spec, last = optimizer_spec(label["optimizer"]), arrays(case["phi_N"])
    total = lambda theta: problem.total(theta, spec, label["N"])
    close(case["hypergrad"], finite_differences(total, THETA), 1e-8)
    close(case["direct_grad"], finite_differences(lambda theta: problem.higher(theta, last), THETA), 1e-8)
    close(case["dJ_dphi"], finite_differences(lambda phi: problem.higher(THETA, phi), last), 1e-8)


REFERENCE = Path(os.environ.get("BISM_JAX_DATA", "")).parent / "reference" / "golden_bidsm.json"

# Only where there is such a file, so that nothing skips elsewhere; continuous integration must have it.
if REFERENCE.exists() or os.environ.get("CI") == "true":

    def test_agrees_with_values_computed_elsewhere():
        reference = json.loads(REFERENCE.read_text())
        assert len(reference["cases"]) == 32
        assert reference["inputs"].items() <= INPUTS.items()
        for expected in reference["cases"]:
            label = {"objective": "DSM", "latents": None}
            label |= {name: expected[name] for name in ("N", "optimizer", "tau")}
            case = next(case for case in golden.load()["cases"] if label.items() <= case.items())
            for name in NAMES:
                close(case[name], expected[name], 1e-9)
