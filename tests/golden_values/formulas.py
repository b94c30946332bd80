"""The losses of both levels for a GRBM with a relaxed Bernoulli posterior, derived by hand.

    E(v, h) = 1/2 sum_i (v_i - b_v_i)^2 exp(-2 s_i) - h^T b_h - v^T W h      s = log_std, W [d, m]
    l(v) = A v + c,   h(v) = sigmoid((l(v) + g) / tau),   g = g_on - g_off
    log q(h|v) = sum_j h_j log sigmoid(l_j) + (1 - h_j) log sigmoid(-l_j) = sum_j h_j l_j - softplus(l_j)

Everything is analytic in theta and phi, so that complex arguments give derivatives to the last digit
(`complex_step`): no absolute value, no maximum, no conjugate.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log(1 + np.exp(x))


def logits(phi, v):
    return v @ phi["A"].T + phi["c"]


def latents(phi, v, noise, tau):
    return sigmoid((logits(phi, v) + noise) / tau)


def log_ratio(theta, phi, v, h):
    """-E(v, h) - log q(h|v), `[B]`."""
    logit = logits(phi, v)
    quadratic = 0.5 * ((v - theta["b_v"]) ** 2 * np.exp(-2 * theta["log_std"])).sum(axis=1)
    energy = quadratic - h @ theta["b_h"] - (v @ theta["W"] * h).sum(axis=1)
    return -energy - (h * logit - softplus(logit)).sum(axis=1)


def lower_loss(theta, phi, v, noise, tau):
    """G = mean_b [E(v, h) + log q(h|v)] at h = h(v)."""
    return -log_ratio(theta, phi, v, latents(phi, v, noise, tau)).mean()


def lower_gradient(theta, phi, v, noise, tau):
    """The gradient of G in phi, through h and log q.

    Of one row dG/dl = h(1 - h)/tau (l - b_h - W^T v) + h - sigmoid(l).
    """
    logit, h = logits(phi, v), latents(phi, v, noise, tau)
    by_logits = h * (1 - h) / tau * (logit - theta["b_h"] - v @ theta["W"]) + h - sigmoid(logit)
    return {"A": by_logits.T @ v / len(v), "c": by_logits.mean(axis=0)}


def score(theta, phi, v, h):
    """The gradient in v of -E - log q with h held: -(v - b_v) e^{-2s} + W h - A^T (h - sigmoid(l))."""
    quadratic = (v - theta["b_v"]) * np.exp(-2 * theta["log_std"])
    return -quadratic + h @ theta["W"].T - (h - sigmoid(logits(phi, v))) @ phi["A"]


def score_jacobian(theta, phi, v, h, tau, moving):
    """ds/dv, `[B, d, d]`: -diag(e^{-2s}) + A^T diag(sigmoid'(l)) A with h held.

    Where h moves with v, ds/dh dh/dv = (W - A^T) diag(h(1 - h)/tau) A is added.
    """
    mean = sigmoid(logits(phi, v))
    held = phi["A"].T @ ((mean * (1 - mean))[:, :, None] * phi["A"]) - np.diag(np.exp(-2 * theta["log_std"]))
    if not moving:
        return held
    by_v = (h * (1 - h) / tau)[:, :, None] * phi["A"]
    return held + (theta["W"] - phi["A"].T) @ by_v


def dsm(theta, phi, v, noise, tau, eps, noise_std):
    """J = mean_b 1/2 |s + eps/noise_std|^2 at v + noise_std eps, which is `v` here."""
    s = score(theta, phi, v, latents(phi, v, noise, tau))
    return 0.5 * ((s + eps / noise_std) ** 2).sum(axis=1).mean()


def ssm(theta, phi, v, noise, tau, projection, moving):
    """J = mean_b [1/2 |s|^2 + u^T (ds/dv) u]."""
    h = latents(phi, v, noise, tau)
    sliced = np.einsum("bi,bij,bj->b", projection, score_jacobian(theta, phi, v, h, tau, moving), projection)
    return (0.5 * (score(theta, phi, v, h) ** 2).sum(axis=1) + sliced).mean()


def sm(theta, phi, v, noise, tau, moving):
    """J = mean_b [1/2 |s|^2 + tr ds/dv]."""
    h = latents(phi, v, noise, tau)
    trace = np.einsum("bii->b", score_jacobian(theta, phi, v, h, tau, moving))
    return (0.5 * (score(theta, phi, v, h) ** 2).sum(axis=1) + trace).mean()


def complex_step(fn, tree):
    """The gradient of an analytic `fn` at real arrays: Im fn(x + i step) / step, exact to rounding."""
    step = 1e-100

    def entry(name, index):
        moved = {key: value.astype(complex) for key, value in tree.items()}
        moved[name][index] += 1j * step
        return fn(moved).imag / step

    return {
        name: np.array([entry(name, index) for index in np.ndindex(value.shape)]).reshape(value.shape)
        for name, value in tree.items()
    }
