"""How the minutes are shared among the stages."""

from __future__ import annotations

from collections.abc import Sequence


def allot(seconds_left: float, shares: Sequence[float]) -> float:
    """Seconds of the first of the stages that are left, in proportion to their shares.

    What a stage leaves over goes to those after it, and the last has all that is left.
    """
    return max(0.0, seconds_left) * shares[0] / sum(shares)
