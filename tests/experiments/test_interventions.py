"""Interventions: what each does to kernels before training, and adds in training."""

import itertools
from functools import cache

import jax
import numpy as np
import pytest

from experiments.interventions import EARLIER, INTERVENTIONS, intervention
from experiments.losses import Options
from tests.library import oracle

LAYERS = ("Conv_0", "Conv_1")
BOTH = "scale-free-shrunk-decay"
OF_MAPS = [name for name in INTERVENTIONS if name.startswith("decorrelate")]
# Those that are others and weight decay are tested as such.
ALONE = {n: x for n, x in INTERVENTIONS.items() if "+" not in n and n not in OF_MAPS}
BEFORE = [name for name, x in ALONE.items() if x.before.amount]
DURING = [name for name, x in ALONE.items() if x.during]
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


PARAMS, DEFAULT = random_params(), Options()
# Neighbouring pixels are alike, as in photographs.
IMAGES = np.float32(np.cumsum(np.random.default_rng(1).normal(size=(6, 7, 8, 2)), 2))


def kernels_of(params):
    return [oracle.float64(params[layer]["kernel"]) for layer in LAYERS]


def others_of(params):
    """All leaves but the conv kernels."""
    return [
        leaf
        for layer, leaves in params.items()
        for name, leaf in leaves.items()
        if layer not in LAYERS or name != "kernel"
    ]


@cache  # compiles each once for all tests
def initialized(name, amount, options=DEFAULT):
    initialize = INTERVENTIONS[name].of_amount(amount).before
    return jax.jit(lambda params: initialize(params, options, IMAGES))(PARAMS)


def added(name, strength, options=DEFAULT):
    """What an intervention adds to updates of nothing."""
    transform = INTERVENTIONS[name].during.add_gradient(np.float32(strength), options)
    zeros = jax.tree.map(np.zeros_like, PARAMS)
    return jax.jit(transform.update)(zeros, transform.init(PARAMS), PARAMS)[0]


def norms(params):
    return [np.linalg.norm(kernel) for kernel in kernels_of(params)]


def parallel(params, other):
    """Whether each kernel is a positive multiple of the other's."""
    pairs = zip(kernels_of(params), kernels_of(other), strict=True)
    return np.allclose([oracle.cosine(a, b) for a, b in pairs], 1, rtol=1e-5)


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


def mean_squared_cosine(products):
    diagonal = np.diag(products)
    squares = products**2 / np.outer(diagonal, diagonal)
    return np.mean([squares[i, j] for i, j in oracle.pairs_of(len(products), "all")])


def on_images(kernel):
    """Sum over all pairs of taps, each weighted by how alike its two pixels are."""
    taps = list(np.ndindex(kernel.shape[:2]))
    products = np.zeros(2 * kernel.shape[-1:])
    for (y, x), (v, u) in itertools.product(taps, taps):
        alike = 0.9 ** np.hypot(y - v, x - u)
        products += alike * kernel[y, x].T @ kernel[v, u]
    return mean_squared_cosine(products)


def similarity(**options):
    return lambda kernels: oracle.total_similarity(kernels, **options)


def over_layers(of_kernel):
    return lambda kernels: sum(map(of_kernel, kernels))


PAPER = similarity(channels="matched", normalize=False, pairs="all")
ADJACENT = similarity(channels="matched", normalize=False, pairs="adjacent")
SCALE_FREE = similarity(channels="cross", normalize=True, pairs="all")
SQUARE = over_layers(lambda kernel: 0.5 * np.sum(kernel**2))
# What each is named for.
LOSSES = {
    "paper": PAPER,
    "paper-norm": PAPER,
    "paper-adjacent": ADJACENT,
    "paper-decoupled": PAPER,
    "scale-free": SCALE_FREE,
    "scale-free-norm": SCALE_FREE,
    "scale-free-decoupled": SCALE_FREE,
    "matched": similarity(channels="matched", normalize=True, pairs="all"),
    "decay": SQUARE,
    BOTH: SQUARE,
    "cosine": over_layers(squared_cosine),
    "image-metric": over_layers(on_images),
    "so": over_layers(soft_orthogonality),
    "srip": over_layers(spectral_isometry),
    "ocnn": over_layers(convolutional_orthogonality),
}


def loss_of(name):
    return LOSSES[name.removesuffix("-init").removesuffix("-reg")]


@promoting_optax
@pytest.mark.parametrize("name", BEFORE)
def test_initializations_change_conv_kernels_and_leave_other_leaves_alone(name):
    minimizes = name.removesuffix("-init") in LOSSES
    result = initialized(name, 10.0 if minimizes else ALONE[name].before.tried[0])
    assert jax.tree.structure(result) == jax.tree.structure(PARAMS)
    for leaf, other in zip(others_of(result), others_of(PARAMS), strict=True):
        np.testing.assert_array_equal(leaf, other)
    assert not np.allclose(kernels_of(result)[0], kernels_of(PARAMS)[0])
    if minimizes:
        loss = loss_of(name)
        assert loss(kernels_of(result)) < 0.999 * loss(kernels_of(PARAMS))


@promoting_optax
@pytest.mark.parametrize("name", [x for x in ALONE if x.endswith("shrunk")])
def test_controls_have_exactly_the_norms_of_the_paper_s_initialization(name):
    reached = norms(initialized("paper-init", 10.0))
    np.testing.assert_allclose(norms(initialized(name, 10.0)), reached, rtol=1e-6)
    assert not np.allclose(reached, norms(PARAMS), rtol=1e-2)


@promoting_optax
def test_controls_have_the_directions_that_they_are_named_for():
    assert parallel(initialized("shrunk", 10.0), PARAMS)
    for name, of, amount in (
        ("scale-free-shrunk", "scale-free-init", 100.0),
        ("zero-mean-shrunk", "zero-mean", 1.0),
    ):
        taken_apart = initialized(of, amount)
        assert parallel(initialized(name, 10.0), taken_apart)
        assert not parallel(taken_apart, PARAMS)


@promoting_optax
@pytest.mark.parametrize(
    ("name", "amount", "factor"),
    [
        ("scale-free-norm-init", 10.0, 1.0),
        ("paper-norm-init", 10.0, 1.0),
        ("scaled", 0.5, 0.5),
        ("scale-free-scaled", 0.5, 0.5),
    ],
)
def test_the_norm_of_each_output_channel_is_kept_or_scaled(name, amount, factor):
    result = initialized(name, amount)
    for ours, theirs in zip(kernels_of(result), kernels_of(PARAMS), strict=True):
        lengths = (np.sqrt((kernel**2).sum((0, 1, 2))) for kernel in (ours, theirs))
        np.testing.assert_allclose(next(lengths), factor * next(lengths), rtol=1e-5)
    assert parallel(result, PARAMS) == (name == "scaled")


@pytest.mark.parametrize("fraction", INTERVENTIONS["zero-mean"].tried)
def test_a_fraction_of_the_mean_is_taken_away_and_the_norm_kept(fraction):
    result = initialized("zero-mean", fraction)
    np.testing.assert_allclose(norms(result), norms(PARAMS), rtol=1e-6)
    before, after = (kernels_of(params)[0] for params in (PARAMS, result))
    expected = np.empty_like(before)
    for c, m in np.ndindex(before.shape[2:]):
        expected[..., c, m] = before[..., c, m] - fraction * before[..., c, m].mean()
    expected *= np.linalg.norm(before) / np.linalg.norm(expected)
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-6)


def test_a_filter_of_one_tap_which_is_all_mean_is_left_alone():
    params = {"Conv_0": {"kernel": PARAMS["Conv_0"]["kernel"][:1, :1]}}
    result = INTERVENTIONS["zero-mean"].before(params, Options())
    np.testing.assert_array_equal(result["Conv_0"]["kernel"], params["Conv_0"]["kernel"])


@promoting_optax
@pytest.mark.parametrize(
    ("name", "amount", "options", "same"),
    [
        ("scale-free-init", 10.0, Options(preserve_norm=True), "scale-free-norm-init"),
        ("paper-init", 10.0, Options(pairs="adjacent"), "paper-adjacent-init"),
        (BOTH, 30.0, DEFAULT, "scale-free-shrunk"),
    ],
)
def test_one_with_options_is_another_by_name(name, amount, options, same):
    expected = initialized(same, amount)
    ours = initialized(name, amount, options)
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


@pytest.mark.parametrize("name", DURING)
def test_a_regularizer_adds_its_strength_times_the_gradient_of_its_loss(name):
    """The slope of the loss along what is added, in float64, has its sign and size."""
    strength, loss = INTERVENTIONS[name].during.tried[1], loss_of(name)
    result = added(name, strength)
    assert not any(leaf.any() for leaf in others_of(result))
    slope = [kernel / strength for kernel in kernels_of(result)]
    square = sum(np.sum(kernel**2) for kernel in slope)
    assert square > 0
    step = 1e-4 / np.sqrt(square)
    ahead, behind = (
        loss([k + h * g for k, g in zip(kernels_of(PARAMS), slope, strict=True)])
        for h in (step, -step)
    )
    np.testing.assert_allclose((ahead - behind) / (2 * step), square, rtol=1e-3)


def test_pairs_reach_the_loss_in_training():
    adjacent = added("paper-reg", 0.1, Options(pairs="adjacent"))
    jax.tree.map(
        np.testing.assert_array_equal, adjacent, added("paper-adjacent-reg", 0.1)
    )


@pytest.mark.parametrize("name", [x for x in INTERVENTIONS if x.startswith("decay+")])
def test_decay_with_an_initialization_is_the_one_and_then_the_other(name):
    both, alone = INTERVENTIONS[name], INTERVENTIONS[name.removeprefix("decay+")]
    assert (both.before, both.role, both.tried) == (alone.before, alone.role, alone.tried)
    assert both.strength == 0.1 and both.tunes == "before"
    result = added(name, both.strength)
    assert not any(leaf.any() for leaf in others_of(result))
    for ours, kernel in zip(kernels_of(result), kernels_of(PARAMS), strict=True):
        np.testing.assert_allclose(ours, 0.1 * kernel, rtol=1e-6)


@pytest.mark.parametrize("name", OF_MAPS)
def test_what_decorrelates_maps_adds_nothing_to_kernels_that_no_map_is_known_of(name):
    """It sees an image in four, or in as many as its name says, or 5 rows of 20."""
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(added(name, 1.0)))
    parts = {"whole-batch": 1, "eighth": 8, "sixteenth": 16}
    steps = {"every-4": 4, "every-16": 16}
    generator = np.random.default_rng(0)
    maps = {
        str(M): np.float32(
            generator.normal(size=(32, 20, M)) + generator.normal(size=(32, 20, 1))
        )
        for M in (2, 4)
    }
    how, expected = name.removeprefix("decorrelate-"), 0.0
    for layer in maps.values():
        seen = layer[:, 7:12] if how == "rows" else layer[:: parts.get(how, 4)]
        squares = np.corrcoef(seen.reshape(-1, layer.shape[-1]).T) ** 2
        pairs = oracle.pairs_of(len(squares), "all")
        expected += np.mean([squares[i, j] for i, j in pairs])
    value = INTERVENTIONS[name].during.loss.of_maps(maps)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    loss = INTERVENTIONS[name].during.loss
    assert (loss.own, loss.every) == (how == "own", steps.get(how, 1))


def test_the_baseline_and_muon_leave_kernels_alone():
    for name in ("none", "muon"):
        assert INTERVENTIONS[name].before(PARAMS, Options()) is PARAMS
        assert INTERVENTIONS[name].during is None
    assert INTERVENTIONS["muon"].optimizer == "muon"
    assert INTERVENTIONS["muon"].tuned(0.0) == INTERVENTIONS["muon"]


def test_what_begins_after_another_has_its_optimizer():
    for one in INTERVENTIONS.values():
        if one.after is not None:
            before = INTERVENTIONS[one.after]
            assert (before.tunes, before.optimizer) == ("rate", one.optimizer)
    assert INTERVENTIONS["decorrelate+muon"].after == "muon"


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_what_is_tuned_and_what_it_is_compared_with(name):
    one = INTERVENTIONS[name]
    assert (one.role == "baseline") == (name == "none")
    if one.tunes != "rate":
        for value in one.tried:
            tuned = one.tuned(value)
            assert value == (
                tuned.strength if one.tunes == "during" else tuned.before.amount
            )
            assert tuned.control == one.control
    if one.control is not None:
        assert INTERVENTIONS[one.control].role == "control"
        assert name.startswith("decay+") <= one.control.startswith("decay")
    assert bool(one.during and one.during.decoupled) == ("decoupled" in name)
    assert ("strength" in one.takes) == (one.during is not None)


def test_earlier_names_are_known_and_others_are_named():
    for earlier, name in EARLIER.items():
        assert intervention(earlier) is INTERVENTIONS[name]
    with pytest.raises(ValueError, match=r"'decays'; expected .* such as decay$"):
        intervention("decays")
