"""What a posterior is worth: its gap, its latents, and scores of data that are not the model's."""
