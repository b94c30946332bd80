"""The partition function by annealed importance sampling, from both ends."""

from __future__ import annotations

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._contract.guarded_calls import check_parameters
from bism_jax._jax_switches import with_transfers
from bism_jax._tracing.compilation import compiled
from bism_jax._tracing.jax_internals import is_traced
from bism_jax.evaluation._model_functions import capability_of
from bism_jax.evaluation.likelihood._importance_weights import LogMean, log_mean, resample
from bism_jax.samplers import gibbs
from bism_jax.typing import Params

_CALLER = "annealed_importance_sampling"
_CAPABILITIES = ("annealed", "base_log_partition", "sample_base", "free_energy", "sample_h", "sample_v")
_REFRESHING_SWEEPS = 100  # before the reverse run, so that copies of one particle part
_TRUSTED_FRACTION = 0.1  # of the particles; with fewer the errors are too small, as measured below


class AnnealedImportance(NamedTuple):
    """An estimate of log Z, in nats, with what says how far to trust it.

    Attributes:
        log_partition: log mean w of the forward run. It exceeds log Z by b nats with probability at most
            e^-b, and falls short of it where weights are missing.
        standard_error: of `log_partition`, by the jackknife over the weights; see
            `annealed_importance_sampling` for how far it can be trusted.
        reverse_log_partition: -log mean 1/w of the reverse run, which errs upwards in the same sense.
        reverse_standard_error: of `reverse_log_partition`.
        lower: `log_partition` minus three standard errors.
        upper: `reverse_log_partition` plus three standard errors. Both ends are one-sided statements: a
            mode that no particle met makes `lower` too low, and lowers `upper` with it.
        effective_sample_size: (sum w)^2 / sum w^2 of the forward run.
        reverse_effective_sample_size: the same of the weights 1/w of the reverse run.
    """

    log_partition: Float[Array, ""]
    standard_error: Float[Array, ""]
    reverse_log_partition: Float[Array, ""]
    reverse_standard_error: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    effective_sample_size: Float[Array, ""]
    reverse_effective_sample_size: Float[Array, ""]


@with_transfers
def annealed_importance_sampling(
    energy_fn: Any,
    theta: Params,
    rng_key: Key[Array, ""],
    *,
    num_particles: int = 2000,
    num_temperatures: int = 2000,
) -> AnnealedImportance:
    """Estimates log Z(theta) along p_k(v) ~ exp(-F(v; theta_k)), theta_k = annealed(theta, k / n).

        w = Z_0 prod_{k=1}^n p*_k(v_{k-1}) / p*_{k-1}(v_{k-1}),    p*_k = exp(-F(.; theta_k))
        forward:  v_0 ~ p_0,      then v_k = T_k(v_{k-1}) for k = 1 .. n-1,    Z = E[w]
        reverse:  v_{n-1} ~ p_n,  then v_{k-1} = T_k(v_k) for k = n-1 .. 1,    1/Z = E[1/w]

    T_k is a Gibbs sweep at theta_k, which is reversible in v. (Neal, Statistics
    and Computing 2001; the reverse run: Burda, Grosse and Salakhutdinov, AISTATS 2015, arXiv 1412.8566.)

    There are no exact samples of p_n, so the reverse run starts from the forward particles, resampled by
    their weights and moved by 100 sweeps at theta. It sees the modes that the forward run saw, no more:
    a gap between the two runs shows a path too short, no gap does not show that every mode was met.

    The standard errors are the jackknife's. They say how an estimate varies with the key, and not its bias,
    downwards in the forward run and upwards in the reverse one: about half its variance, and where the
    warning is given up to 1.7 standard deviations, so that three errors hold log Z half to two thirds of the
    time. Measured on GRBMs with P = 20 to 2000, over the actual standard deviation, by the coefficient of
    variation c of the weights:

        c                                     0.6            2 to 5         34 to 150 (with the warning)
        root mean square of the errors        0.96 to 1.07   0.98 to 1.10   0.93 to 1.11
        their mean                            0.96 to 1.07   0.82 to 1.03   0.75 to 0.85
        mean of c / sqrt(P), to first order   0.96 to 1.06   0.68 to 1.01   0.38 to 0.54

    Both runs are one compiled program, which holds two sets of particles at a time. Under an outer `jit`
    there is no warning; look at `effective_sample_size`.

    Args:
        energy_fn: a model with `annealed(theta, beta) -> theta_beta`, from a tractable base at beta = 0 to
            theta at beta = 1, `base_log_partition(theta)`, `sample_base(theta, rng_key, num_samples)`, which
            draws v of that base exactly, `free_energy`, `sample_h` and `sample_v`, such as `GRBM`.
        theta: its parameters.
        rng_key: key.
        num_particles: particles of each run, at least 2.
        num_temperatures: n, the steps from the base to theta, a Gibbs sweep each.

    Raises:
        TypeError: where the parameters or the key have the wrong type.
        ValueError: where the model lacks a capability, cannot be evaluated with theta, or a number is
            too small.

    Warns:
        UserWarning: where the effective sample size is below a tenth of the particles.
    """
    checks.loop_count("num_temperatures", num_temperatures)
    checks.loop_count("num_particles", num_particles)
    if num_particles < 2:
        raise ValueError("num_particles=1 has no spread to estimate an error from; use at least 2.")
    # Here so that what is missing is told before anything is compiled; the trace asks again.
    for name in _CAPABILITIES:
        capability_of(_CALLER, energy_fn, name)
    check_parameters("theta", theta, "energy_fn", energy_fn)
    rng_key = checks.rng_key("rng_key", rng_key)
    result = compiled(functools.partial(_both_runs, energy_fn, num_particles, num_temperatures))(
        theta, rng_key
    )
    if not is_traced(result):
        _warn(result, num_particles, num_temperatures)
    return result


def _both_runs(
    energy_fn: Any, num_particles: int, num_temperatures: int, theta: Params, rng_key: Key[Array, ""]
) -> AnnealedImportance:
    annealed, base_log_partition, sample_base, free_energy, sample_h, sample_v = (
        capability_of(_CALLER, energy_fn, name) for name in _CAPABILITIES
    )

    def run(v: Array, betas: Array, key: Array) -> tuple[Array, Array]:
        """Steps from each beta to the next: the last particles, and the log weights of their paths."""

        def step(carry: tuple[Array, Array], inputs: tuple[Array, Array, Array]) -> tuple[Any, None]:
            v, log_weights = carry
            start, stop, key = inputs
            after = annealed(theta, stop)
            # Weighed before the move: E[w] = Z holds for ratios at the point that the last density left. In
            # logs, since a product of thousands of ratios leaves the range of floats.
            log_weights += free_energy(annealed(theta, start), v) - free_energy(after, v)
            # The last sweep, which the path lacks, leaves its density as it is, and no weight sees it.
            return (gibbs(sample_h, sample_v, after, key, v, 1)[0], log_weights), None

        inputs = betas[:-1], betas[1:], jax.random.split(key, num_temperatures)
        # A free energy for its shape and dtype alone; XLA drops the computation.
        return jax.lax.scan(step, (v, jnp.zeros_like(free_energy(theta, v))), inputs)[0]

    base_key, forward_key, resample_key, refresh_key, reverse_key = jax.random.split(rng_key, 5)
    betas = jnp.arange(num_temperatures + 1) / num_temperatures
    v = sample_base(annealed(theta, betas[0]), base_key, num_particles)
    v, log_weights = run(v, betas, forward_key)
    # Forward particles are of p_n by their weights only, and the reverse run has no weights to start with.
    v = v[resample(resample_key, log_weights)]
    v, _ = gibbs(sample_h, sample_v, theta, refresh_key, v, _REFRESHING_SWEEPS)
    _, reverse_log_weights = run(v, betas[::-1], reverse_key)
    return _summary(base_log_partition(theta), log_mean(log_weights), log_mean(reverse_log_weights))


def _summary(base: Array, forward: LogMean, reverse: LogMean) -> AnnealedImportance:
    forward_value, reverse_value = base + forward.value, base - reverse.value
    return AnnealedImportance(
        log_partition=forward_value,
        standard_error=forward.standard_error,
        reverse_log_partition=reverse_value,
        reverse_standard_error=reverse.standard_error,
        lower=forward_value - 3 * forward.standard_error,
        upper=reverse_value + 3 * reverse.standard_error,
        effective_sample_size=forward.effective_sample_size,
        reverse_effective_sample_size=reverse.effective_sample_size,
    )


def _warn(result: AnnealedImportance, num_particles: int, num_temperatures: int) -> None:
    for run, size in (
        ("forward", result.effective_sample_size),
        ("reverse", result.reverse_effective_sample_size),
    ):
        if not size >= _TRUSTED_FRACTION * num_particles:  # also where it is NaN
            warnings.warn(
                f"{_CALLER}: the effective sample size of the {run} run is {float(size):.1f} of "
                f"num_particles={num_particles}, so its estimate and error are not to be trusted; raise "
                f"num_temperatures={num_temperatures}.",
                stacklevel=4,  # `_warn`, the evaluation, its `with_transfers`, the caller
            )
