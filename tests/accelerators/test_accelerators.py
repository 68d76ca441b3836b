"""Programs compiled for accelerators that are not there, by `make accelerators`."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh

import convsim_jax as cs
from experiments.benchmark import accelerators, counts, networks
from experiments.benchmark.updates import LOSSES, RECOMMENDED, SGD, transformations
from experiments.data.images import Images
from experiments.fit import devices, engine
from experiments.fit.engine import Engine
from experiments.fit.optimizer import Factors, learning_rates, optimizer
from experiments.losses import Options
from experiments.models import build

KINDS = ("h100", "v5e")
accelerators.prepare(KINDS)  # or it fails here, and says what is missing

in_either_dtype = pytest.mark.parametrize(
    ("kind", "dtype"), [("h100", "float32"), ("v5e", "bfloat16")]
)
on_each = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.usefixtures("relaxed_jax")  # Flax's batch normalisation promotes

# A 3x3 kernel of each width of ResNet-18, value and gradient in float32: at most so many
# kernels on an H100; so many bytes moved there, and on a v5e by XLA's count, in units of
# the weights'. Each is a little over what it is now. Aimed at, of all 20 kernels, are 4
# a layer; 4.0 of all pairs and 6.0 of the others; and 1.5 times SGD's 14.2, which is 21.3
# (of these four SGD moves less on a v5e, in whose fast memory they fit).
SHAPES = {f"conv{width}/kernel": (3, 3, width, width) for width in (64, 128, 256, 512)}
BOUNDS = {
    "all pairs": (15, 5.2, 19.5),
    "adjacent pairs": (15, 6.1, 15.5),
    "cross-channel": (13, 3.1, 19.5),
    "cross-channel, adjacent": (14, 3.1, 19.5),
    "scale-free": (35, 8.3, 22.5),
    "scale-free, adjacent": (34, 8.6, 33.5),
    "scale-free cross-channel": (21, 3.1, 19.5),
    "scale-free cross-channel, adjacent": (17, 3.1, 19.5),
}
MOST_MEMORY = 1.2  # beside arguments and results, in units of the weights


@cache
def loss(kind, program):
    return counts.losses(kind, SHAPES, [program])[0]


def test_the_yardstick_is_what_sgd_has_to_move():
    """Reads weights, momentum and gradient, writes the first two: five times."""
    row = loss("h100", SGD)
    assert row["kernels"] == 4 and row["times_moved"] == pytest.approx(5)


@on_each
@pytest.mark.parametrize("option", LOSSES)
def test_kernels_and_bytes_stay_within_their_bounds(kind, option):
    kernels, on_gpu, on_tpu = BOUNDS[option]
    row = loss(kind, option)
    assert row["times_memory"] <= MOST_MEMORY
    assert row["times_moved"] <= (on_gpu if kind == "h100" else on_tpu)
    assert kind != "h100" or row["kernels"] <= kernels


def test_kernels_of_the_recommended_option_in_a_whole_network():
    (row,) = counts.losses("h100", networks.kernel_shapes("resnet18"), [RECOMMENDED])
    assert row["kernels"] <= 92 and row["times_moved"] <= 3.1


def other_windows(dtype):
    """5x5 of so many weights that they are computed in blocks."""
    shapes = {"blocks": (5, 5, 64, 64), "7x7": (7, 7, 3, 16), "1-D": (3, 8, 8)}
    shapes |= {"3x3": (3, 3, 16, 32), "1x1": (1, 1, 16, 32)}
    return {
        name: {"kernel": jax.ShapeDtypeStruct(shape, dtype)}
        for name, shape in shapes.items()
    }


def every_kernel(params):
    return jax.tree.map(lambda leaf: True, params)


@on_each
@pytest.mark.parametrize(
    ("option", "dtype"),
    [*((name, "float32") for name in LOSSES), (RECOMMENDED, "bfloat16")],
)
def test_every_option_compiles_for_every_window(kind, option, dtype):
    params = counts.placed(other_windows(dtype), kind)
    total = partial(cs.total_similarity, mask=every_kernel, **LOSSES[option])
    assert accelerators.compiled_for(kind, jax.value_and_grad(total), params)["kernels"]


@in_either_dtype
def test_minimize_similarity_compiles(kind, dtype):
    params = counts.placed(other_windows(dtype), kind)

    def minimize(params):
        return cs.minimize_similarity(
            params, 10, mask=every_kernel, preserve_norm=True, **LOSSES[RECOMMENDED]
        )

    assert accelerators.compiled_for(kind, minimize, params)["kernels"]


# A quarter of the rows of maps of ResNet-18, its first and its last, and its gradient
# added to that of the maps: at most so many kernels on an H100; bytes there and on a v5e,
# in units of the maps'. Each is a little over what it is now; a sum alone moves three.
@pytest.mark.parametrize(
    ("shape", "kernels", "bounds"),
    [
        ((128, 32, 32, 64), 13, {"h100": 4.5, "v5e": 8}),
        ((128, 4, 4, 512), 9, {"h100": 19, "v5e": 19}),
    ],
)
@on_each
def test_what_decorrelation_moves_beside_the_maps(kind, shape, kernels, bounds):
    decorrelation = partial(cs.decorrelation, fraction=0.25)

    def add(maps, slope):
        value, gradient = jax.value_and_grad(decorrelation)(maps)
        return value, slope + gradient

    maps = counts.placed(jax.ShapeDtypeStruct(shape, jnp.bfloat16), kind)
    row = accelerators.compiled_for(kind, add, maps, maps)
    assert row["moved"] <= bounds[kind] * 2 * np.prod(shape)
    assert kind == "v5e" or row["kernels"] <= kernels


@pytest.mark.parametrize("option", ["all pairs", RECOMMENDED])
def test_the_loss_in_a_sharded_update_gathers_no_kernel(option):
    """On four chips that divide the output channels only sums leave a chip."""
    shapes = {"Conv": {"kernel": jax.ShapeDtypeStruct((3, 3, 64, 128), jnp.float32)}}
    params = counts.placed(shapes, "v5e", counts.SHARDED)
    transformation = transformations()[option]

    def add(params):
        zero = jax.tree.map(jnp.zeros_like, params)
        return transformation.update(zero, transformation.init(params), params)[0]

    exchanged = accelerators.compiled_for("v5e", add, params)["exchanged"]
    largest = max(size for sizes in exchanged.values() for size in sizes)
    assert 0 < largest < 4 * 3 * 3 * 64 * 128 / 4


@pytest.mark.parametrize(
    ("kind", "dtype", "layout"),
    [
        ("h100", "float32", counts.ALONE),
        ("h100", "bfloat16", counts.ALONE),
        ("v5e", "float32", counts.SHARDED),
        ("v5e", "bfloat16", counts.SHARDED),
    ],
)
def test_a_step_of_training_with_the_loss_compiles_and_fits(kind, dtype, layout):
    rows = counts.step(kind, "cnn", 32, dtype=dtype, layouts=[layout])
    assert [row["program"] for row in rows] == list(counts.STEPS)
    assert all(row["fits"] for row in rows)
    gathers = [len(row["exchanged"].get("all-gather", [])) for row in rows]
    assert gathers[1] <= gathers[0]  # no kernel more than without the loss


def compile_only(kind):
    """In place of `Engine._run`: compiles, and returns ones of the results' shapes."""

    def run(self, name, function, *arguments, donate=()):
        arguments = jax.tree.map(np.asarray, arguments)
        shapes = jax.eval_shape(lambda *x: x, *arguments)
        placed = counts.placed(shapes, kind, counts.LAYOUTS[1])
        accelerators.compiled_for(kind, function, *placed, donate=donate)
        results = jax.eval_shape(function, *arguments)
        return jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), results)

    return run


@in_either_dtype
def test_the_training_engine_and_the_programs_of_its_report_compile(
    kind, dtype, monkeypatch
):
    chips = np.array(accelerators.devices(kind))
    mesh = Mesh(chips, ("batch",), axis_types=(AxisType.Auto,))
    monkeypatch.setattr(devices, "mesh", lambda: mesh)
    monkeypatch.setattr(engine.Engine, "_run", compile_only(kind))
    rates = learning_rates("cosine", 0.1, (), 2, 4)
    similarity = transformations()[RECOMMENDED]
    trained = Engine(
        model=build("cnn", classes=3, width=0.25, dtype=jnp.dtype(dtype)),
        optimizer=lambda factors: optax.chain(
            similarity, optimizer("sgd", rates, 0.9, 1e-4, None, Options(), factors)
        ),
        seeds=2,
        mean=np.zeros(3, np.float32),
        deviation=np.ones(3, np.float32),
        augment=True,
    )
    factors = Factors(learning_rate=1.0, strength=0.0)
    images = Images(np.zeros((16, 32, 32, 3), np.uint8), np.zeros(16, np.int32))
    batch = jax.tree.map(lambda rows: rows[:8], images)

    def initialize(params, _):
        return cs.minimize_similarity(params, 5, **LOSSES[RECOMMENDED])[0]

    variables = trained.start(initialize, images.images)
    network, chosen = trained.networks(variables, factors)
    network = trained.train(network, factors, 1, range(2), images, drawn=8)
    network = trained.train(network, factors, 1, range(1, 2), batch)
    scored = trained.score(network.variables, [batch]).accuracy
    network, chosen = trained.close_epoch(network, chosen, 1, scored)
    measured = trained.layers(chosen.variables, images.images)
    assert measured.before.shape == (2, 3)
