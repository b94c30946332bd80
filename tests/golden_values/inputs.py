"""What the golden values are computed from: parameters, a batch, frozen noise and optimisers."""

_ADAM = {"kind": "adam", "lr": 0.01, "betas": [0.9, 0.95], "eps": 1e-08}

INPUTS = {
    "v": [[0.1, 0.7, 0.35], [0.9, 0.2, 0.55], [0.45, 0.6, 0.05], [0.25, 0.15, 0.95]],
    "noise_std": 0.3,
    "eps_inner": [[0.3, -1.1, 0.6], [-0.4, 0.2, 1.3], [1.0, 0.5, -0.8], [-1.2, 0.9, 0.1]],
    "eps_outer": [[-0.7, 0.4, 0.2], [0.8, -0.3, -0.9], [0.15, 1.2, -0.5], [0.6, -0.65, 1.05]],
    "projection": [[1, -1, 1], [-1, -1, 1], [1, 1, 1], [-1, 1, -1]],
    "g_on_inner": [[0.5, -0.2], [1.1, 0.3], [-0.6, 0.9], [0.2, -0.4]],
    "g_off_inner": [[-0.1, 0.4], [0.7, -0.5], [0.25, 0.6], [-0.3, 0.8]],
    "g_on_outer": [[0.15, 0.85], [-0.45, 0.1], [0.95, -0.25], [0.4, 0.55]],
    "g_off_outer": [[0.35, -0.3], [0.2, 0.65], [-0.15, 0.5], [0.75, -0.7]],
    "theta": {
        "W": [[0.3, -0.2], [-0.5, 0.4], [0.25, 0.6]],
        "b_h": [0.1, -0.3],
        "b_v": [0.2, -0.1, 0.05],
        "log_std": [-0.2, 0.1, -0.4],
    },
    "phi0": {"A": [[0.4, -0.3, 0.2], [-0.1, 0.5, 0.35]], "c": [0.05, -0.15]},
    "optimizers": [
        {"name": "sgd", "kind": "sgd", "lr": 0.1},
        {"name": "adam_fresh_higher_eps", **_ADAM, "eps_mode": "higher"},
        {"name": "adam_fresh_standard_eps", **_ADAM, "eps_mode": "standard"},
        {
            "name": "adam_carried_state_higher_eps",
            **_ADAM,
            "eps_mode": "higher",
            "m0": {"A": [[0.02, -0.01, 0.03], [-0.04, 0.015, 0.005]], "c": [0.01, -0.02]},
            "s0": {"A": [[0.004, 0.002, 0.003], [0.005, 0.001, 0.006]], "c": [0.002, 0.003]},
            "t0": 7,
        },
    ],
}
TEMPERATURES = (0.5, 0.1)
DEPTHS = (0, 1, 2, 5)
# Of the losses with a Jacobian, the optimisers and the depths in between would say nothing new.
JACOBIAN_DEPTHS = (0, 2)
