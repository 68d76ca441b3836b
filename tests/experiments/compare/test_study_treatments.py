"""Treatments: what each does to kernels before training, and adds in training."""

from functools import cache

import jax
import numpy as np
import pytest

from experiments.study.treatments import TREATMENTS, Kind, unchanged
from tests.library import oracle

LAYERS = ("Conv_0", "Conv_1")
BOTH = "scale-free-shrunk-decay"
# Those that are others and weight decay are tested as such.
ALONE = {name: each for name, each in TREATMENTS.items() if "+" not in name}
INITIALIZATIONS = [n for n, each in ALONE.items() if each.initialize is not unchanged]
REGULARIZERS = [name for name, each in ALONE.items() if each.regularize]
# Optax's Adam promotes its count.
promoting_optax = pytest.mark.usefixtures("relaxed_jax")


def random_params():
    generator = np.random.default_rng(0)
    shapes = {
        **{layer: {"kernel": (3, 3, 2, 4), "bias": (4,)} for layer in LAYERS},
        "BatchNorm_0": {"scale": (4,), "bias": (4,)},
        "Dense_0": {"kernel": (12, 3), "bias": (3,)},
    }
    return jax.tree.map(
        lambda shape: np.float32(generator.normal(size=shape, scale=0.5)),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


PARAMS = random_params()


@cache  # compiles each once for all tests
def initialized(name, strength):
    run = jax.jit(lambda params: TREATMENTS[name].initialize(params, strength))
    quickly = {"xla_backend_optimization_level": "0"}
    return run.lower(PARAMS).compile(quickly)(PARAMS)


def norms(params):
    return [np.linalg.norm(oracle.float64(params[layer]["kernel"])) for layer in LAYERS]


def parallel(params, other):
    """Whether each kernel is a positive multiple of the other's."""
    cosines = [oracle.cosine(params[x]["kernel"], other[x]["kernel"]) for x in LAYERS]
    return np.allclose(cosines, 1, rtol=1e-5)


@promoting_optax
@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_initializations_change_conv_kernels_and_leave_other_leaves_alone(name):
    result = initialized(name, TREATMENTS[name].strengths[0])
    assert jax.tree.structure(result) == jax.tree.structure(PARAMS)
    for layer, leaves in PARAMS.items():
        for leaf, value in leaves.items():
            if layer in LAYERS and leaf == "kernel":
                continue
            np.testing.assert_array_equal(result[layer][leaf], value)
    assert not np.allclose(result["Conv_0"]["kernel"], PARAMS["Conv_0"]["kernel"])


@promoting_optax
@pytest.mark.parametrize("name", [x for x in TREATMENTS if x.endswith("shrunk")])
def test_controls_have_exactly_the_norms_of_the_paper_s_initialization(name):
    reached = norms(initialized("paper-init", 10.0))
    np.testing.assert_allclose(norms(initialized(name, 10.0)), reached, rtol=1e-6)
    assert not np.allclose(reached, norms(PARAMS), rtol=1e-2)


@promoting_optax
def test_controls_have_the_directions_that_they_are_named_for():
    assert parallel(initialized("shrunk", 10.0), PARAMS)
    for name, of, strength in (
        ("scale-free-shrunk", "scale-free-init", 100.0),
        ("zero-mean-shrunk", "zero-mean", 1.0),
    ):
        taken_apart = initialized(of, strength)
        assert parallel(initialized(name, 10.0), taken_apart)
        assert not parallel(taken_apart, PARAMS)


@promoting_optax
def test_decay_may_start_from_scale_free_shrunk():
    ours, expected = (initialized(x, 30.0) for x in (BOTH, "scale-free-shrunk"))
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


@promoting_optax
@pytest.mark.parametrize(
    ("name", "strength", "factor"),
    [
        ("scale-free-norm-init", 10.0, 1.0),
        ("paper-norm-init", 10.0, 1.0),
        ("scaled", 0.5, 0.5),
        ("scale-free-scaled", 0.5, 0.5),
    ],
)
def test_the_norm_of_each_output_channel_is_kept_or_scaled(name, strength, factor):
    result = initialized(name, strength)
    for layer in LAYERS:
        ours, theirs = (
            np.sqrt((oracle.float64(params[layer]["kernel"]) ** 2).sum((0, 1, 2)))
            for params in (result, PARAMS)
        )
        np.testing.assert_allclose(ours, factor * theirs, rtol=1e-5)
    assert parallel(result, PARAMS) == (name == "scaled")


def similarity_of(channels, normalize, pairs="all"):
    def value(params):
        kernels = [params[layer]["kernel"] for layer in LAYERS]
        return oracle.total_similarity(
            kernels, channels=channels, normalize=normalize, pairs=pairs
        )

    return value


def over_layers(of_kernel):
    def value(params):
        return sum(of_kernel(oracle.float64(params[x]["kernel"])) for x in LAYERS)

    return value


def squared_cosine(kernel):
    cosines = oracle.kernel_cosine_similarity(kernel)
    return np.mean([cosines[i, j] ** 2 for i, j in oracle.pairs_of(len(cosines), "all")])


def soft_orthogonality(kernel):
    flat = kernel.reshape(-1, kernel.shape[-1])
    return np.sum((flat.T @ flat - np.eye(kernel.shape[-1])) ** 2)


def spectral_isometry(kernel):
    """Two products by `W^T W - I`, of the library's own start."""
    flat = kernel.reshape(-1, kernel.shape[-1])
    error = flat.T @ flat - np.eye(kernel.shape[-1])
    once = error @ oracle.float64(jax.random.normal(jax.random.key(0), (len(error),)))
    return np.linalg.norm(error @ once) / np.linalg.norm(once)


def convolutional_orthogonality(kernel):
    """Inner products of every two kernels at every lag, less 1 for one with itself."""
    _, _, inputs, outputs = kernel.shape
    total = 0.0
    for i, j in np.ndindex(outputs, outputs):
        products = sum(
            oracle.cross_correlate(kernel[..., c, i], kernel[..., c, j])
            for c in range(inputs)
        )
        products[2, 2] -= i == j
        total += np.sum(products**2)
    return total


def on_images(kernel):
    """Cosines of kernels times the square root of the metric of natural images."""
    taps = list(np.ndindex(kernel.shape[:2]))
    metric = [[0.9 ** np.hypot(y - v, x - u) for v, u in taps] for y, x in taps]
    values, vectors = np.linalg.eigh(metric)
    seen = (vectors * np.sqrt(values)).T @ kernel.reshape(len(taps), -1)
    return squared_cosine(seen.reshape(kernel.shape))


# What each is named for.
LOSSES = {
    "paper": similarity_of("matched", normalize=False),
    "paper-norm": similarity_of("matched", normalize=False),
    "paper-adjacent": similarity_of("matched", normalize=False, pairs="adjacent"),
    "paper-decoupled": similarity_of("matched", normalize=False),
    "scale-free": similarity_of("cross", normalize=True),
    "scale-free-norm": similarity_of("cross", normalize=True),
    "scale-free-decoupled": similarity_of("cross", normalize=True),
    "matched": similarity_of("matched", normalize=True),
    "decay": over_layers(lambda kernel: 0.5 * np.sum(kernel**2)),
    "scale-free-shrunk-decay": over_layers(lambda kernel: 0.5 * np.sum(kernel**2)),
    "cosine": over_layers(squared_cosine),
    "image-metric": over_layers(on_images),
    "so": over_layers(soft_orthogonality),
    "srip": over_layers(spectral_isometry),
    "ocnn": over_layers(convolutional_orthogonality),
}


def loss_of(name):
    return LOSSES[name.removesuffix("-init").removesuffix("-reg")]


@promoting_optax
@pytest.mark.parametrize(
    "name", [name for name in INITIALIZATIONS if name.removesuffix("-init") in LOSSES]
)
def test_steps_lower_the_loss_that_they_are_named_for(name):
    loss = loss_of(name)
    assert loss(initialized(name, 10.0)) < 0.999 * loss(PARAMS)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_regularizer_adds_its_strength_times_the_gradient_of_its_loss(name):
    """The slope of the loss along what is added, in float64, has its sign and size."""
    strength, loss = TREATMENTS[name].strengths[1], loss_of(name)
    transform = TREATMENTS[name].regularize(np.float32(strength))
    zeros = jax.tree.map(np.zeros_like, PARAMS)
    added, _ = jax.jit(transform.update)(zeros, transform.init(PARAMS), PARAMS)
    gradient = jax.tree.map(lambda leaf: oracle.float64(leaf) / strength, added)
    square = sum(np.sum(leaf**2) for leaf in jax.tree.leaves(gradient))
    assert square > 0
    step = 1e-4 / np.sqrt(square)
    ahead, behind = (
        loss(jax.tree.map(lambda p, g, h=h: oracle.float64(p) + h * g, PARAMS, gradient))
        for h in (step, -step)
    )
    np.testing.assert_allclose((ahead - behind) / (2 * step), square, rtol=1e-3)
    for layer, leaves in gradient.items():
        for leaf, value in leaves.items():
            assert value.any() == (layer in LAYERS and leaf == "kernel")


@pytest.mark.parametrize("fraction", TREATMENTS["zero-mean"].strengths)
def test_a_fraction_of_the_mean_is_taken_away_and_the_norm_kept(fraction):
    result = initialized("zero-mean", fraction)
    np.testing.assert_allclose(norms(result), norms(PARAMS), rtol=1e-6)
    before, after = (
        oracle.float64(params["Conv_0"]["kernel"]) for params in (PARAMS, result)
    )
    expected = np.empty_like(before)
    for c, m in np.ndindex(before.shape[2:]):
        expected[..., c, m] = before[..., c, m] - fraction * before[..., c, m].mean()
    expected *= np.linalg.norm(before) / np.linalg.norm(expected)
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-6)
    if fraction == 1:
        np.testing.assert_allclose(after.mean((0, 1)), 0, atol=1e-7)


def test_a_filter_of_one_tap_which_is_all_mean_is_left_alone():
    params = {"Conv_0": {"kernel": PARAMS["Conv_0"]["kernel"][:1, :1]}}
    result = TREATMENTS["zero-mean"].initialize(params, 1.0)
    np.testing.assert_array_equal(result["Conv_0"]["kernel"], params["Conv_0"]["kernel"])


@pytest.mark.parametrize("name", sorted(set(TREATMENTS) - set(ALONE)))
def test_decay_with_an_initialization_is_the_one_and_then_the_other(name):
    treatment, alone = TREATMENTS[name], TREATMENTS[name.removeprefix("decay+")]
    assert treatment.initialize is alone.initialize
    assert (treatment.kind, treatment.strengths) == (alone.kind, alone.strengths)
    transform = treatment.regularize(np.float32(30.0))
    zeros = jax.tree.map(np.zeros_like, PARAMS)
    added, _ = transform.update(zeros, transform.init(PARAMS), PARAMS)
    for layer, leaves in PARAMS.items():
        for leaf, value in leaves.items():
            factor = 0.1 if layer in LAYERS and leaf == "kernel" else 0.0
            np.testing.assert_allclose(added[layer][leaf], factor * value, rtol=1e-6)


def test_what_is_compared_with_decay_has_decay_itself():
    controls = {n: x.control for n, x in TREATMENTS.items() if n not in ALONE}
    assert controls == {
        "decay+shrunk": "decay",
        "decay+scale-free-shrunk": "decay+shrunk",
        "decay+scale-free-norm-init": "decay",
        "decay+cosine-init": "decay",
        "decay+image-metric-init": "decay",
    }


def test_all_but_one_treatment_are_before_training_or_in_it():
    assert set(INITIALIZATIONS) | set(REGULARIZERS) | {"none"} == set(ALONE)
    assert set(INITIALIZATIONS) & set(REGULARIZERS) == {BOTH}
    for name in REGULARIZERS:
        assert name.endswith(("-reg", "decay"))
        assert TREATMENTS[name].decoupled == ("decoupled" in name)
    assert not any(TREATMENTS[name].decoupled for name in INITIALIZATIONS)
    for each in TREATMENTS.values():
        assert each.control is None or TREATMENTS[each.control].kind is Kind.CONTROL
    (baseline,) = (n for n, each in TREATMENTS.items() if each.kind is Kind.BASELINE)
    assert baseline == "none"


def test_the_baseline_is_left_alone():
    assert TREATMENTS["none"].initialize(PARAMS, 0.0) is PARAMS
    assert TREATMENTS["none"].regularize is None
