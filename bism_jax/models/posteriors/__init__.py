"""Posteriors of the latents given the visible variables."""
