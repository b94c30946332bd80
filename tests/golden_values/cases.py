"""The golden values: losses, gradients and hypergradients by objective, optimiser, depth and temperature."""

import functools
import itertools

import numpy as np

from tests.golden_values import formulas
from tests.golden_values.descent import arrays, descend
from tests.golden_values.inputs import DEPTHS, INPUTS, JACOBIAN_DEPTHS, TEMPERATURES

LATENTS = ("fixed", "moving")


def array(name):
    return np.asarray(INPUTS[name], float)


def latent_noise(level):
    return array(f"g_on_{level}") - array(f"g_off_{level}")


class Bilevel:
    """Both losses with all noise frozen, as functions of theta and phi."""

    def __init__(self, objective, form, tau):
        v, noisy = array("v"), objective == "DSM"
        points = {
            level: v + noisy * INPUTS["noise_std"] * array(f"eps_{level}") for level in ("inner", "outer")
        }
        higher = {
            "DSM": functools.partial(formulas.dsm, eps=array("eps_outer"), noise_std=INPUTS["noise_std"]),
            "SSM": functools.partial(formulas.ssm, projection=array("projection"), moving=form == "moving"),
            "SM": functools.partial(formulas.sm, moving=form == "moving"),
        }[objective]
        lower = {"v": points["inner"], "noise": latent_noise("inner"), "tau": tau}
        self.higher = functools.partial(higher, v=points["outer"], noise=latent_noise("outer"), tau=tau)
        self.lower = functools.partial(formulas.lower_loss, **lower)
        self.lower_gradient = functools.partial(formulas.lower_gradient, **lower)

    def path(self, theta, spec, num_steps):
        """phi^0, ..., phi^N as a function of theta."""
        return descend(lambda phi: self.lower_gradient(theta, phi), arrays(INPUTS["phi0"]), spec, num_steps)

    def total(self, theta, spec, num_steps):
        """J(theta, phi^N(theta))."""
        return self.higher(theta, self.path(theta, spec, num_steps)[-1])


def labels():
    """What names a case, in the order of the file; DSM has no Jacobian, which alone tells the forms apart."""
    for tau, spec, depth in itertools.product(TEMPERATURES, INPUTS["optimizers"], DEPTHS):
        yield {"objective": "DSM", "latents": None, "tau": tau, "optimizer": spec["name"], "N": depth}
    for objective, form, tau, depth in itertools.product(
        ("SSM", "SM"), LATENTS, TEMPERATURES, JACOBIAN_DEPTHS
    ):
        yield {"objective": objective, "latents": form, "tau": tau, "optimizer": "sgd", "N": depth}


def optimizer_spec(name):
    return next(spec for spec in INPUTS["optimizers"] if spec["name"] == name)


def compute(label):
    """The values of one case."""
    problem = Bilevel(label["objective"], label["latents"], label["tau"])
    spec, depth, theta = optimizer_spec(label["optimizer"]), label["N"], arrays(INPUTS["theta"])
    path = problem.path(theta, spec, depth)
    last = path[-1]
    return {
        "J": problem.higher(theta, last),
        "inner_loss_along_path": np.array([problem.lower(theta, phi) for phi in path]),
        "phi_N": last,
        "hypergrad": formulas.complex_step(lambda theta: problem.total(theta, spec, depth), theta),
        "direct_grad": formulas.complex_step(lambda theta: problem.higher(theta, last), theta),
        "dJ_dphi": formulas.complex_step(lambda phi: problem.higher(theta, phi), last),
    }
