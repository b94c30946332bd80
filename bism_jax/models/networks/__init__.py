"""Networks that energies, posteriors, critics and image features are made of."""
