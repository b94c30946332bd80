"""Energy-based latent-variable models by bi-level score matching, and hypergradients, in JAX."""

__version__ = "0.1.0"
