"""Pictures of fits: densities, training curves, images and animations.

Each picture is returned as a matplotlib figure, made without pyplot: there is no global state, no backend to
choose, and nothing to close. An animation is written to a file.
"""

from bism_jax.plotting.animation import save_animation
from bism_jax.plotting.curves import plot_curves, plot_learning_curves
from bism_jax.plotting.density import Bounds, plot_density, plot_density_grid
from bism_jax.plotting.figure import save
from bism_jax.plotting.history import plot_history
from bism_jax.plotting.images import (
    image_mosaic,
    plot_film_strip,
    plot_image_grid,
    plot_inpainting,
    plot_reconstructions,
)
from bism_jax.plotting.tables import plot_tables

__all__ = [
    "Bounds",
    "image_mosaic",
    "plot_curves",
    "plot_density",
    "plot_density_grid",
    "plot_film_strip",
    "plot_history",
    "plot_image_grid",
    "plot_inpainting",
    "plot_learning_curves",
    "plot_reconstructions",
    "plot_tables",
    "save",
    "save_animation",
]
