"""The methods that are compared, each in the setting of its paper on the paper's GRBMs."""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from bism_jax import methods, objectives
from bism_jax.models import BernoulliPosterior, GaussianPosterior, MLPDecoder
from bism_jax.typing import Method
from experiments.methods import MethodConfig

_KEPT: dict[str, Any] = {"keep_unrolled": True, "lower_steps": 0, "noise": "shared"}


class Contender(NamedTuple):
    """A method with the posterior that it fits.

    Attributes:
        method: how to train.
        posterior_fn: q(h | v), or None.
    """

    method: Method
    posterior_fn: Any = None


def checkerboard_contenders(num_data: int) -> dict[str, Contender]:
    """Every method, on a GRBM with 2 visible and 4 hidden units; Adam 1e-3 throughout."""
    posterior = BernoulliPosterior(4)
    # The authors' Adam, which has no momentum, at ten times their rates, to suit this comparison's.
    rates = methods.Optimizers(optax.adam(1e-3, b1=0.0, b2=0.9), optax.adam(3e-3, b1=0.0, b2=0.9))
    bidvl = methods.BiDVL(MLPDecoder((2,), (64, 64)), optimizers=rates)
    return {
        "CD-1": Contender(methods.ContrastiveDivergence(1)),
        "CD-5": Contender(methods.ContrastiveDivergence(5)),
        "CD-10": Contender(methods.ContrastiveDivergence(10)),
        "PCD-1": Contender(methods.PersistentContrastiveDivergence(1)),
        "PersistentVI": Contender(methods.PersistentVI(num_data)),
        "PersistentVI Fadeout": Contender(methods.PersistentVI(num_data, prior=methods.Fadeout())),
        "NCE": Contender(methods.NCE()),
        "VNCE": Contender(methods.VNCE(), posterior),
        "SSM": Contender(methods.ScoreMatching(objectives.SSM())),
        "DSM": Contender(methods.ScoreMatching(objectives.DSM(0.05))),
        "KSD": Contender(methods.ScoreMatching(objectives.KSD(0.1))),
        "IS-KSD": Contender(methods.ScoreMatching(objectives.KSD(0.1), free_energy=methods.UniformBinary(4))),
        "BiDVL": Contender(bidvl, GaussianPosterior(2, (64, 64))),
        "VaGES-DSM": Contender(methods.VaGES(objectives.DSM(0.05)), posterior),
        "VaGES-KSD": Contender(methods.VaGES(objectives.KSD(0.1)), posterior),
        "BiSSM N=0": Contender(MethodConfig("bissm", num_steps=0).make(), posterior),
        "BiSSM N=5": Contender(MethodConfig("bissm").make(), posterior),
        "BiSSM N=5 kept": Contender(MethodConfig("bissm", **_KEPT).make(), posterior),
        "BiSSM N=0, h fixed": Contender(
            MethodConfig("bissm", num_steps=0, latents="fixed").make(), posterior
        ),
        "BiSSM N=5 kept, h fixed": Contender(
            MethodConfig("bissm", latents="fixed", **_KEPT).make(), posterior
        ),
        "BiDSM N=0": Contender(MethodConfig(num_steps=0).make(), posterior),
        "BiDSM N=5": Contender(MethodConfig().make(), posterior),
        "BiDSM N=5 kept": Contender(MethodConfig(**_KEPT).make(), posterior),
    }


def frey_face_contenders(num_hidden: int) -> dict[str, Contender]:
    """DSM on the free energy against bi-level DSM, sigma 0.3 and Adam 2e-4."""
    posterior = BernoulliPosterior(num_hidden)
    options: dict[str, Any] = {"noise_std": 0.3, "learning_rate": 2e-4}
    return {
        "DSM": Contender(MethodConfig("dsm", **options).make()),
        "BiDSM N=0": Contender(MethodConfig(num_steps=0, **options).make(), posterior),
        "BiDSM N=5": Contender(MethodConfig(**options).make(), posterior),
        "BiDSM N=5 kept": Contender(MethodConfig(**_KEPT, **options).make(), posterior),
    }
