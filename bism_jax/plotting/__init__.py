"""Pictures of fits: densities, training curves, images and animations.

Each picture is returned as a matplotlib figure, made without pyplot: there is no global state, no backend to
choose, and nothing to close. An animation is written to a file.
"""

from bism_jax.plotting._animation import save_animation
from bism_jax.plotting._curves import plot_curves, plot_learning_curves
from bism_jax.plotting._density import Bounds, plot_density, plot_density_grid
from bism_jax.plotting._figure import save
from bism_jax.plotting._image_grids import (
    image_mosaic,
    plot_film_strip,
    plot_image_grid,
    plot_inpainting,
    plot_reconstructions,
)
from bism_jax.plotting._tables import plot_tables
from bism_jax.plotting._training_history import plot_history

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
