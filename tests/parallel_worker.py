"""Trains with the devices that it sees and saves the result; test_parallel.py runs it in processes."""

import sys

import jax
import numpy as np
import optax

from bism_jax import (
    DSM,
    KSD,
    MDSM,
    NCE,
    VNCE,
    BiDVL,
    BiSM,
    Implicit,
    Optimizers,
    PersistentContrastiveDivergence,
    PersistentVI,
    ScoreMatching,
    StopGradient,
    Truncated,
    Unrolled,
    VaGES,
    fit,
)
from bism_jax.data import checkerboard
from bism_jax.methods import UniformBinary
from bism_jax.models import GRBM, BernoulliPosterior, GaussianPosterior, MLPDecoder

OPTIMIZERS = Optimizers(optax.adam(1e-2, eps_root=1e-16), optax.adam(1e-2, eps_root=1e-16))
STRATEGIES = {
    "unrolled": Unrolled(2),
    "plain": Unrolled(2, mixed_mode=False),
    "segments": Unrolled(3, segment=2),
    "truncated": Truncated(2, last=1),
    "implicit": Implicit(2, solver_steps=3, damping=1.0, tolerance=1e9),
    "stop_gradient": StopGradient(2),
}
METHODS = {
    name: BiSM(DSM(0.3), hypergradient=strategy, optimizers=OPTIMIZERS)
    for name, strategy in STRATEGIES.items()
}
METHODS["fresh_mdsm"] = BiSM(
    MDSM(0.1, 1.0), lower_steps=1, hypergradient=Unrolled(1), noise="fresh", keep_unrolled=False,
    optimizers=OPTIMIZERS, num_particles=2,
)  # fmt: skip
METHODS["marginal"] = ScoreMatching(MDSM(0.1, 1.0), OPTIMIZERS.theta)
RATE = OPTIMIZERS.theta
BASELINES = {
    "ksd": ScoreMatching(KSD(0.3), RATE, free_energy=UniformBinary(2)),
    "nce": NCE(2, optimizer=RATE),
    "vnce": VNCE(lower_steps=1, noise_ratio=2, num_particles=2, optimizers=OPTIMIZERS),
    "vages": VaGES(DSM(0.3), lower_steps=1, num_particles=2, optimizers=OPTIMIZERS),
    "persistent": PersistentContrastiveDivergence(optimizer=RATE),
    "persistent_vi": PersistentVI(64, optimizer=RATE),
    "bidvl": BiDVL(MLPDecoder((2,), (4,)), hypergradient=Unrolled(1), optimizers=OPTIMIZERS),
}
METHODS |= BASELINES
POSTERIORS = {
    "bidvl": GaussianPosterior(2),
    **dict.fromkeys(("marginal", "ksd", "nce", "persistent", "persistent_vi")),
}


def main(output, parallel, names):
    data = np.asarray(checkerboard.sample(jax.random.key(0), 64), np.float64)
    results = {}
    for name in names:
        method = METHODS[name]
        result = fit(
            GRBM(2),
            POSTERIORS.get(name, BernoulliPosterior(2, temperature=0.5)),
            data,
            method=method,
            num_steps=50,
            batch_size=16,
            parallel=parallel,
        )
        leaves = jax.tree.leaves((result.theta, result.phi, result.history))
        results[name] = np.concatenate([np.ravel(leaf) for leaf in leaves])
    if jax.process_index() == 0:
        np.savez(output, devices=jax.device_count(), **results)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    from experiments.launch.distributed import initialize_from_environment

    initialize_from_environment()
    main(sys.argv[1], None if sys.argv[2] == "None" else sys.argv[2], sys.argv[3].split(","))
