"""Measures of samples and of scores against closed forms, SciPy, and loops over all pairs."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.spatial.distance
import scipy.stats
from sklearn.metrics import roc_auc_score

from bism_jax._tracing import compilation
from bism_jax.evaluation import (
    FeatureStatistics,
    auroc,
    distance_label,
    extract_features,
    feature_statistics,
    frechet_distance,
    kernel_distance,
    ood_scores,
    precision_recall,
)
from bism_jax.evaluation.samples import _squared_distances
from bism_jax.models import BernoulliPosterior, LinearGaussian
from tests.small_models import conditional_moments, joint_moments, linear_theta, normal

close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
KEY = jax.random.key(0)


def with_moments(mean, covariance, num_rows=50):
    """Rows whose sample mean and unbiased covariance are exactly these."""
    white = normal(num_rows, len(mean), seed=7)
    white = white - white.mean(axis=0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(white.T)))).T
    return np.asarray(mean) + white @ np.linalg.cholesky(covariance).T


def random_covariance(size, seed):
    factor = normal(size, size, seed=seed)
    return factor @ factor.T + 0.1 * np.eye(size)


# ---------------------------------------------------------------- Frechet distance


def test_frechet_distance_of_gaussians_that_commute():
    """|m_x - m_y|^2 + sum_i (s_i - t_i)^2 for covariances with one basis and deviations s and t."""
    basis = np.linalg.qr(normal(4, 4))[0]
    s, t = np.array([1.0, 2.0, 0.5, 3.0]), np.array([2.0, 0.1, 0.5, 1.0])
    mean_x, mean_y = normal(4, seed=1), normal(4, seed=2)
    x = with_moments(mean_x, basis * s**2 @ basis.T)
    y = with_moments(mean_y, basis * t**2 @ basis.T, num_rows=80)
    close(frechet_distance(x, y), ((mean_x - mean_y) ** 2).sum() + ((s - t) ** 2).sum())


@pytest.mark.parametrize("size", [1, 3, 12])
def test_frechet_distance_agrees_with_a_matrix_root(size):
    mean_x, mean_y = normal(size, seed=1), normal(size, seed=2)
    covariance_x, covariance_y = random_covariance(size, 3), random_covariance(size, 4)
    root = scipy.linalg.sqrtm(covariance_x @ covariance_y).real
    expected = ((mean_x - mean_y) ** 2).sum() + np.trace(covariance_x + covariance_y - 2 * root)
    x, y = with_moments(mean_x, covariance_x), with_moments(mean_y, covariance_y)
    close(frechet_distance(x, y), expected, rtol=1e-8)
    close(frechet_distance(y, x), expected, rtol=1e-8)


def test_frechet_distance_of_singular_covariances():
    """On lines at an angle a: tr (S_x S_y)^{1/2} = s t |cos a|."""
    angle, s, t = 0.7, 2.0, 3.0
    line = np.linspace(-1, 1, 20)[:, None] / np.linspace(-1, 1, 20).std(ddof=1)
    x = s * line @ np.array([[1.0, 0.0, 0.0]])
    y = t * line @ np.array([[np.cos(angle), np.sin(angle), 0.0]])
    close(frechet_distance(x, y), s**2 + t**2 - 2 * s * t * np.cos(angle))
    close(frechet_distance(x, x), 0, atol=1e-12)
    constant = np.ones((5, 3))
    close(frechet_distance(constant, constant + 2), 12)


def test_equal_features_have_no_distance_however_singular():
    x = normal(40, 30) @ normal(30, 200, seed=1)
    says = "{} has 40 rows for 200 features.*singular.*take more rows"
    with pytest.warns(UserWarning, match=says.format("x")), pytest.warns(UserWarning, match=says.format("y")):
        distance = frechet_distance(x, x)
    assert 0 <= distance < 1e-9 * (x**2).sum() / 40


def test_frechet_distance_warns_of_no_more_rows_than_features():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(normal(4, 3), normal(4, 3, seed=1))
    with pytest.warns(UserWarning, match="y has 3 rows for 3 features"):
        frechet_distance(normal(4, 3), normal(3, 3, seed=1))


# ---------------------------------------------------------------- statistics and features


class Mean:
    """The mean colour, as a feature function that remembers the shapes it has seen."""

    def __init__(self, name="Mean@1"):
        self.name, self.shapes = name, []

    def __call__(self, images):
        self.shapes.append(images.shape)
        return images.mean(axis=(1, 2))


def images(num_rows=23, seed=0):
    return np.random.default_rng(seed).uniform(size=(num_rows, 4, 5, 3)).astype(np.float32)


def test_features_of_batches_of_one_size():
    feature_fn = Mean()
    found = extract_features(feature_fn, images(), batch_size=10)
    np.testing.assert_allclose(found, images().mean(axis=(1, 2)), rtol=1e-6)
    assert feature_fn.shapes == [(10, 4, 5, 3)] * 3
    extract_features(feature_fn, jnp.asarray(images(3)), batch_size=10)
    assert feature_fn.shapes[3:] == [(3, 4, 5, 3)]


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_streamed_statistics_are_those_of_all_rows(batch_size):
    statistics = feature_statistics(Mean(), images() + 100, data="d", batch_size=batch_size)
    rows = extract_features(Mean(), images() + 100).astype(np.float64)
    assert (statistics.num_rows, statistics.features, statistics.data) == (23, "Mean@1", "d")
    close(statistics.mean, rows.mean(axis=0))
    close(statistics.covariance, np.cov(rows.T), rtol=1e-8)


def test_statistics_and_rows_give_one_distance(tmp_path):
    x, y = (feature_statistics(Mean(), images(seed=seed), data=f"d{seed}", batch_size=7) for seed in (0, 1))
    expected = frechet_distance(*(extract_features(Mean(), images(seed=seed)) for seed in (0, 1)))
    close(frechet_distance(x, y), expected)
    x.save(tmp_path / "x")
    close(frechet_distance(FeatureStatistics.load(tmp_path / "x", features="Mean@1", data="d0"), y), expected)


def test_statistics_of_other_features_or_data_are_refused(tmp_path):
    x = feature_statistics(Mean(), images(), data="d")
    x.save(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"the features 'Mean@1', not 'Mean@2'; compute them anew"):
        FeatureStatistics.load(tmp_path / "x.npz", features="Mean@2", data="d")
    with pytest.raises(ValueError, match=r"the data 'd', not 'e'; compute them anew"):
        FeatureStatistics.load(tmp_path / "x.npz", features="Mean@1", data="e")
    other = feature_statistics(Mean("Mean@2"), images(), data="d")
    for refused in (lambda: frechet_distance(x, other), lambda: x.merge(other)):
        with pytest.raises(ValueError, match=r"features 'Mean@1' and 'Mean@2' cannot be compared"):
            refused()
    with pytest.raises(ValueError, match=r"features 'Mean@1' and None cannot be compared"):
        frechet_distance(x, normal(10, 3))
    with pytest.raises(ValueError, match="data 'd' and None are not of one data set"):
        x.merge(feature_statistics(Mean(), images()))
    with pytest.raises(ValueError, match="need names to be saved"):
        feature_statistics(Mean(), images()).save(tmp_path / "y.npz")


def test_files_that_hold_no_statistics(tmp_path):
    load = functools.partial(FeatureStatistics.load, features="f", data="d")
    with pytest.raises(FileNotFoundError, match="no feature statistics at"):
        load(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_bytes(b"text")
    np.savez(tmp_path / "other.npz", mean=np.ones(3))
    for name in ("text.npz", "other.npz"):
        with pytest.raises(ValueError, match="holds no feature statistics"):
            load(tmp_path / name)
    np.savez(tmp_path / "wrong.npz", features="f", data="d", num_rows=3, mean=np.ones(3), scatter=np.eye(2))
    with pytest.raises(ValueError, match=r"scatter of shape \(2, 2\) for 3 features"):
        load(tmp_path / "wrong.npz")


def test_only_inceptions_distances_bear_the_names_of_the_literature():
    assert distance_label("Frechet distance", "InceptionV3@0123abcd") == "FID"
    assert distance_label("kernel distance", "InceptionV3@0123abcd") == "KID"
    assert distance_label("Frechet distance", "CifarResNet20@0123abcd") == (
        "Frechet distance (CifarResNet20@0123abcd)"
    )
    for name in ("InceptionV3Small@1", "MyInceptionV3", "inception"):
        assert distance_label("kernel distance", name) == f"kernel distance ({name})"
    with pytest.raises(ValueError, match="distance='FID' is unknown; choose one of 'Frechet distance'"):
        distance_label("FID", "InceptionV3")


# ---------------------------------------------------------------- kernel distance


def double_loop(x, y):
    """The unbiased estimate, pair by pair."""

    def mean(first, second, same):
        values = [
            (a @ b / len(a) + 1) ** 3
            for i, a in enumerate(first)
            for j, b in enumerate(second)
            if not (same and i == j)
        ]
        return np.mean(values)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def test_kernel_distance_agrees_with_a_double_loop():
    # Equal rows within x and within y: the subsets do not depend on the split.
    rows_x, rows_y = normal(1, 4), normal(1, 4, seed=1) + 0.5
    x, y = np.repeat(rows_x, 10, axis=0), np.repeat(rows_y, 14, axis=0)
    result = kernel_distance(x, y, KEY, subset_size=5)
    close(result.value, double_loop(x[:5], y[:5]))
    assert result.standard_error == pytest.approx(0, abs=1e-12) and result.num_subsets == 2


def test_kernel_distance_averages_disjoint_subsets():
    """On the split that the key gives: two subsets of 3 rows."""
    x, y = normal(6, 3), normal(6, 3, seed=1)
    result = kernel_distance(x, y, KEY, subset_size=3)
    orders = [np.asarray(jax.random.permutation(key, 6)) for key in jax.random.split(KEY)]
    pairs = [(x[orders[0][part]], y[orders[1][part]]) for part in (slice(0, 3), slice(3, 6))]
    values = [double_loop(*pair) for pair in pairs]
    close(result.value, np.mean(values))
    close(result.standard_error, np.std(values, ddof=1) / np.sqrt(2))


def test_kernel_distance_is_unbiased_and_its_error_is_honest():
    x, y, z = normal(4000, 5), normal(4000, 5, seed=1), normal(4000, 5, seed=2) + 0.3
    same, other = (kernel_distance(x, rows, KEY, subset_size=100) for rows in (y, z))
    assert abs(same.value) < 4 * same.standard_error
    # E k(X, Y) = E (t + 1)^3 with t = X^T Y / d, X ~ N(m, I), Y ~ N(n, I), by the moments of t.
    d, shift = 5, 0.09 * 5

    def expected(inner, norms, square):
        first = inner / d
        second = (d + norms + inner**2) / d**2
        third = (3 * (d + 2) * inner + 3 * inner * square + inner**3) / d**3
        return 1 + 3 * first + 3 * second + third

    # k(X, X'): inner = norms = 0. k(Z, Z'): both means m. k(X, Z): one mean 0.
    zz = expected(shift, 2 * shift, 2 * shift)
    truth = expected(0, 0, 0) + zz - 2 * expected(0, shift, 0)
    assert abs(other.value - truth) < 4 * other.standard_error
    assert other.value > 10 * other.standard_error


# ---------------------------------------------------------------- precision and recall


def brute_force(data, samples, k):
    distance = scipy.spatial.distance.cdist

    def inside(points, manifold):
        radii = np.sort(distance(manifold, manifold), axis=1)[:, k]
        return (distance(points, manifold) <= radii).any(axis=1).mean()

    return inside(samples, data), inside(data, samples)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_precision_and_recall_agree_with_brute_force(x64, k):
    data, samples = normal(60, 4), 0.7 * normal(45, 4, seed=1) + 0.4
    close(precision_recall(data, samples, num_neighbours=k), brute_force(data, samples, k))


def test_blocks_do_not_change_precision_and_recall(x64, monkeypatch):
    data, samples = normal(33, 4, seed=5), normal(21, 4, seed=6) + 0.8
    monkeypatch.setattr(_squared_distances, "_PAIRS_AT_A_TIME", 64)
    close(precision_recall(data, samples), brute_force(data, samples, 3))


def test_known_cases_of_precision_and_recall():
    data, same = normal(400, 2), normal(400, 2, seed=1)
    assert min(precision_recall(data, same)) > 0.9
    assert precision_recall(data, data) == (1, 1)
    assert precision_recall(data, same + 100) == (0, 0)
    near_a_point = data[0] + 1e-3 * normal(400, 2, seed=2)
    precision, recall = precision_recall(data, near_a_point)
    assert precision == 1 and recall < 0.01
    # A sampler that repeats one row of the data, far from the origin, has balls of radius 0.
    precision, recall = precision_recall(data + 50, np.repeat(data[:1] + 50, 400, axis=0))
    assert precision == 1 and recall == pytest.approx(1 / 400)


# ---------------------------------------------------------------- out of distribution


def pairs_won(inside, outside):
    return np.mean([[(a > b) + 0.5 * (a == b) for b in outside] for a in inside])


def test_auroc_enumerates_pairs_with_ties():
    rng = np.random.default_rng(0)
    for inside, outside in (
        (rng.integers(0, 5, 30), rng.integers(0, 4, 17)),
        (normal(12), normal(9, seed=1)),
        ([1.0], [1.0]),
        ([1.0, np.inf], [-np.inf, 1.0, 1.0]),
    ):
        close(auroc(inside, outside), pairs_won(inside, outside))
        close(auroc(outside, inside), 1 - pairs_won(inside, outside))
    assert auroc([2.0, 3.0], [0.0, 1.0]) == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, "bfloat16", np.int32])
def test_auroc_is_exact_in_every_dtype(dtype):
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 200, 5000), rng.integers(0, 190, 3000)
    difference = inside[:, None] - outside
    expected = ((difference > 0).sum() + 0.5 * (difference == 0).sum()) / difference.size
    assert auroc(*(np.asarray(jnp.asarray(scores, dtype)) for scores in (inside, outside))) == expected


def test_auroc_agrees_with_scikit_learn():
    inside, outside = np.round(normal(200) + 0.5, 1), np.round(normal(150, seed=1), 1)
    truth = np.repeat([1, 0], [200, 150])
    close(auroc(inside, outside), roc_auc_score(truth, np.concatenate([inside, outside])))


def exact_posterior(phi, v):
    return LinearGaussian(2).apply(phi, v, method="posterior")


@functools.cache
def marginal():
    mean, covariance = joint_moments(linear_theta())
    return scipy.stats.multivariate_normal(mean[2:], covariance[2:, 2:])


def test_scores_of_the_exact_posterior_are_in_closed_form(x64):
    theta, v = linear_theta(), normal(7, 4, seed=2)
    scores = functools.partial(ood_scores, LinearGaussian(2), exact_posterior, theta, theta, v, batch_size=3)
    log_partition = LinearGaussian(2).apply(theta, method="log_partition")
    close(scores(KEY, score="bound"), marginal().logpdf(v) + log_partition)
    gradient = np.linalg.solve(marginal().cov, (v - marginal().mean).T).T
    close(scores(KEY, score="score_norm"), -np.linalg.norm(gradient, axis=1))
    mean, covariance = joint_moments(theta)
    h, _ = conditional_moments(mean, covariance, [2, 3, 4, 5], v)
    joint = scipy.stats.multivariate_normal(mean, covariance).logpdf(np.concatenate([h, v], axis=1))
    close(scores(), joint + log_partition)


def normal_energy(theta, v, h):
    """Of v ~ N(0, I) and h | v ~ N(v, I)."""
    return 0.5 * (v**2 + (h - v) ** 2).sum(axis=1)


class Shifted:
    """A posterior N(v + shift, 1) with a mean: E_q[-E - log q] falls short by shift^2 / 2 a latent."""

    def __init__(self, loc):
        self.mean = loc

    def sample(self, key, sample_shape=()):
        return self.mean + jax.random.normal(key, sample_shape + self.mean.shape, self.mean.dtype)

    def log_prob(self, h):
        return jax.scipy.stats.norm.logpdf(h, self.mean).sum(axis=-1)


def test_scores_are_averages_over_particles(x64):
    v, shift = normal(4, 2), 0.6
    posterior_fn = lambda phi, v: Shifted(v + phi)
    options = {"num_particles": 20_000, "batch_size": 4}
    scores = functools.partial(ood_scores, normal_energy, posterior_fn, None, shift, v)
    # log p(v) + log Z = -|v|^2 / 2 + log 2 pi; the gap is the divergence of two normals.
    expected = -0.5 * (v**2).sum(axis=1) + np.log(2 * np.pi) - 2 * shift**2 / 2
    np.testing.assert_allclose(scores(KEY, score="bound", **options), expected, atol=0.03)
    # grad_v [-E - log q] = -v + (h - v) - (h - v - shift) = -v + shift for every h.
    close(scores(KEY, score="score_norm"), -np.linalg.norm(shift - v, axis=1))
    close(scores(), -0.5 * (v**2).sum(axis=1) - 2 * shift**2 / 2)


def test_a_last_batch_of_another_size_is_traced_once():
    traces = []

    def energy(theta, v, h):
        traces.append(v.shape)
        return normal_energy(theta, v, h)

    posterior_fn = lambda phi, v: Shifted(v)
    v = normal(11, 2).astype(np.float32)
    for score in ("energy", "bound"):
        traces.clear()
        whole = ood_scores(energy, posterior_fn, None, None, v, KEY, score=score, batch_size=4)
        assert len(set(traces)) == 1 and whole.shape == (11,)
        count, programs = len(traces), len(compilation._programs)
        again = ood_scores(energy, posterior_fn, None, None, v, KEY, score=score, batch_size=4)
        np.testing.assert_array_equal(again, whole)
        assert len(traces) == 2 * count  # once a call, to see what has changed
        assert len(compilation._programs) == programs
    single = [ood_scores(energy, posterior_fn, None, None, v[i : i + 1]) for i in range(11)]
    whole = ood_scores(energy, posterior_fn, None, None, v, batch_size=4)
    np.testing.assert_allclose(np.concatenate(single), whole, rtol=1e-6)


def test_scores_tell_data_from_noise(x64):
    inside, outside = marginal().rvs(200, random_state=0), 3 * normal(200, 4, seed=3) + marginal().mean
    theta = linear_theta()
    for score in ("energy", "bound", "score_norm"):
        values = [
            ood_scores(LinearGaussian(2), exact_posterior, theta, theta, v, KEY, score=score)
            for v in (inside, outside)
        ]
        assert auroc(*values) > 0.75


# ---------------------------------------------------------------- what is refused


MEASURES = {
    "frechet_distance": frechet_distance,
    "kernel_distance": lambda x, y: kernel_distance(x, y, KEY, subset_size=2),
    "precision_recall": precision_recall,
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_features_that_cannot_be_compared(measure):
    x = normal(12, 3)
    not_finite = x.copy()
    not_finite[4, 1] = np.nan
    for y, message in (
        (normal(12, 4), "features a row.*take both from one feature function"),
        (not_finite, "1 rows of features hold NaN or infinite values, the first of them row 4"),
        (normal(12), "features must be a matrix"),
        (normal(12, 3, 2), "features must be a matrix"),
        (normal(1, 3), "at least . rows of features are needed, not 1"),
    ):
        for pair in ((x, y), (y, x)):
            with pytest.raises(ValueError, match=message):
                measure(*pair)


def test_a_covariance_needs_two_rows():
    one = FeatureStatistics.of(normal(1, 3))
    with pytest.raises(ValueError, match="needs at least 2 rows"):
        _ = one.covariance
    with pytest.raises(ValueError, match="y: at least 2 rows of features are needed, not 1"):
        frechet_distance(normal(10, 3), one)


def test_wrong_counts_are_refused():
    x = normal(12, 3)
    with pytest.raises(ValueError, match="x has 12 rows and y has 12; take subset_size=6 or less"):
        kernel_distance(x, x, KEY)
    with pytest.raises(ValueError, match="subset_size must be at least 2"):
        kernel_distance(x, x, KEY, subset_size=1)
    with pytest.raises(
        ValueError, match="num_neighbours=12 needs as many other rows, but data has 12 and samples 12"
    ):
        precision_recall(x, x, num_neighbours=12)
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="num_neighbours must be an integer of at least 1"):
            precision_recall(x, x, num_neighbours=wrong)
        with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
            extract_features(Mean(), images(), batch_size=wrong)


def test_wrong_feature_functions_are_refused():
    with pytest.raises(TypeError, match="feature_fn must be callable on images and have a name"):
        extract_features(lambda images: images, images())
    flat, short, infinite = Mean(), Mean(), Mean()
    flat.__class__ = type("Flat", (Mean,), {"__call__": lambda self, x: x})
    short.__class__ = type("Short", (Mean,), {"__call__": lambda self, x: x[:1, 0, 0]})
    infinite.__class__ = type("Infinite", (Mean,), {"__call__": lambda self, x: x[:, 0, 0] / 0})
    for feature_fn in (flat, short):
        with pytest.raises(ValueError, match=r"Mean@1 gives features of shape .* give \[batch, d\]"):
            extract_features(feature_fn, images())
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=r"Mean@1: 23 rows .* NaN"):
        extract_features(infinite, images())
    with pytest.raises(ValueError, match=r"images has no rows: its shape is \(0, 4, 5, 3\)"):
        extract_features(Mean(), images(0))


def test_wrong_scores_are_refused():
    for wrong in ([], np.ones((2, 1)), [np.nan], 1.0):
        with pytest.raises(ValueError, match="out_scores must be a vector"):
            auroc([1.0], wrong)
        with pytest.raises(ValueError, match="in_scores must be a vector"):
            auroc(wrong, [1.0])
    posterior_fn = lambda phi, v: Shifted(v)
    scores = functools.partial(ood_scores, normal_energy, posterior_fn, None, None, normal(4, 2))
    with pytest.raises(ValueError, match="score='elbo' is unknown; choose one of 'energy', 'bound'"):
        scores(score="elbo")
    for score in ("bound", "score_norm"):
        with pytest.raises(ValueError, match=f"draws latents for score='{score}'; pass rng_key"):
            scores(score=score)
    with pytest.raises(ValueError, match="num_particles must be an integer"):
        scores(num_particles=0)
    with pytest.raises(ValueError, match=r"one floating number a row, shape \(4,\), but returns shape \(\)"):
        ood_scores(lambda theta, v, h: (v + h).sum(), posterior_fn, None, None, normal(4, 2))
    with pytest.raises(ValueError, match="v has no rows"):
        ood_scores(normal_energy, posterior_fn, None, None, normal(0, 2))
    with pytest.raises(TypeError, match="posterior_fn is the class BernoulliPosterior; pass an instance"):
        ood_scores(normal_energy, BernoulliPosterior, None, None, normal(4, 2))


# ---------------------------------------------------------------- collapsed and constant sets


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_sets_of_one_point(dtype):
    x, y = (np.repeat(np.array([point], dtype), 40, axis=0) for point in ([300, -200], [100, 50]))
    a, b = x[0].astype(float), y[0].astype(float)
    found = kernel_distance(x, y, KEY, subset_size=10)
    expected = (a @ a / 2 + 1) ** 3 + (b @ b / 2 + 1) ** 3 - 2 * (a @ b / 2 + 1) ** 3
    close((found.value, found.standard_error), (expected, 0))
    assert kernel_distance(x, x, KEY, subset_size=10).value == 0
    close(frechet_distance(x, y), ((a - b) ** 2).sum())
    assert frechet_distance(x, x) == 0
    assert precision_recall(x, x) == (1, 1) and precision_recall(x, y) == (0, 0)


@pytest.mark.parametrize("score", [0.0, 1.5, np.inf, -np.inf])
def test_auroc_of_scores_that_are_all_one(score):
    assert auroc(np.full(7, score), np.full(3, score)) == 0.5
    assert auroc(np.full(7, score, np.float16), np.full(3, score, np.float16)) == 0.5
