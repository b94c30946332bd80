"""How well a model fits data: likelihoods, Fisher divergences and score-matching objectives."""
