"""One value of each training method, with the posterior that it takes, for a GRBM on the plane."""

from bism_jax.methods import (
    NCE,
    VNCE,
    BiDVL,
    BiSM,
    ContrastiveDivergence,
    PersistentContrastiveDivergence,
    PersistentVI,
    ScoreMatching,
    VaGES,
)
from bism_jax.models import GaussianPosterior, MLPDecoder

DECODER = MLPDecoder((2,), (4,))
METHODS = {
    "BiSM": (BiSM(), GaussianPosterior(2)),
    "VaGES": (VaGES(), GaussianPosterior(2)),
    "VNCE": (VNCE(), GaussianPosterior(2)),
    "ScoreMatching": (ScoreMatching(), None),
    "NCE": (NCE(), None),
    "BiDVL": (BiDVL(DECODER), GaussianPosterior(2)),
    "ContrastiveDivergence": (ContrastiveDivergence(), None),
    "PersistentContrastiveDivergence": (PersistentContrastiveDivergence(), None),
    "PersistentVI": (PersistentVI(100), None),
}
