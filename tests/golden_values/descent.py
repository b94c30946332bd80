"""Lower-level steps of SGD and of Adam, analytic in the gradients."""

import numpy as np


def arrays(tree):
    return {name: np.asarray(value, float) for name, value in tree.items()}


def descend(gradient_fn, phi, spec, num_steps):
    """phi^0, ..., phi^N of the optimiser that `spec` describes.

    Adam with t = t0 + n + 1, m = b1 m + (1 - b1) g and s = b2 s + (1 - b2) g^2 moves phi by

        -lr (m / (1 - b1^t)) / (sqrt(s / (1 - b2^t)) + eps)          eps_mode "standard"
        -lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(s) + eps)          eps_mode "higher"
    """
    path = [phi]
    if spec["kind"] == "sgd":
        for _ in range(num_steps):
            gradient = gradient_fn(path[-1])
            path.append({name: value - spec["lr"] * gradient[name] for name, value in path[-1].items()})
        return path
    (b1, b2), t0 = spec["betas"], spec.get("t0", 0)
    zeros = {name: np.zeros(value.shape) for name, value in phi.items()}
    first, second = arrays(spec.get("m0", zeros)), arrays(spec.get("s0", zeros))
    for t in range(t0 + 1, t0 + 1 + num_steps):
        gradient = gradient_fn(path[-1])
        first = {name: b1 * first[name] + (1 - b1) * gradient[name] for name in phi}
        second = {name: b2 * second[name] + (1 - b2) * gradient[name] ** 2 for name in phi}
        root = np.sqrt(1 - b2**t)
        eps = spec["eps"] * (root if spec["eps_mode"] == "standard" else 1)
        rate = spec["lr"] * root / (1 - b1**t)
        path.append(
            {name: path[-1][name] - rate * first[name] / (np.sqrt(second[name]) + eps) for name in phi}
        )
    return path
