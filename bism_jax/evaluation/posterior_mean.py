"""The mean of a posterior."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float


def posterior_mean(caller: str, posterior: Any) -> Float[Array, "batch *latent"]:
    """The posterior's `mean`; of a relaxed Bernoulli, the mean of the Bernoulli that is relaxed.

    Raises:
        ValueError: where the posterior has none.
    """
    try:
        return posterior.mean
    except (AttributeError, NotImplementedError) as error:
        raise ValueError(
            f"{caller} needs the mean of the posterior, which {type(posterior).__name__} lacks; add a "
            "property mean."
        ) from error
