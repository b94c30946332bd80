"""The mean of a posterior."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float


def posterior_mean(caller: str, posterior: Any) -> Float[Array, "batch *latent"]:
    """The posterior's `mean`; that of `RelaxedBernoulli` is the mean of the Bernoulli that it relaxes.

    Raises:
        ValueError: where the posterior has none.
    """
    try:
        return posterior.mean
    # numpyro raises the second, a distribution of a user's own the first.
    except (AttributeError, NotImplementedError) as error:
        raise ValueError(
            f"{caller} needs the mean of the posterior, which {type(posterior).__name__} lacks; add a "
            "property mean."
        ) from error
