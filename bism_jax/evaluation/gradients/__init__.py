"""How far a gradient is from the exact one."""

from bism_jax.evaluation.gradients._gradient_bias import GradientBias, gradient_bias

__all__ = [
    "GradientBias",
    "gradient_bias",
]
