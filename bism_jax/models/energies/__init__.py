"""Energies of visible variables and latents, and free energies of visible variables alone."""
