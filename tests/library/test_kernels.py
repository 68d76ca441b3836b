"""Which leaves are conv kernels: by name and rank, by mask, by what the network does."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import convsim_jax as cs
from tests.library.framework_networks import network as network_of
from tests.library.kernel_cases import convolve

PARAMS = {
    "conv": {"kernel": jnp.ones((3, 2, 2, 4)), "bias": jnp.ones(4)},
    "temporal": {"kernel": jnp.ones((3, 2, 4))},
    "volume": {"kernel": jnp.ones((1, 2, 1, 2, 4))},
    "head": {"kernel": jnp.ones((4, 2)), "kernel_scale": jnp.ones((1, 1, 1, 2))},
    "zoom": {"subkernel": jnp.ones((1, 1, 1, 3))},
}


def shapes(params, **options):
    return {path: k.shape for path, k in cs.conv_kernels(params, **options).items()}


# Without a mask.


def test_leaves_named_kernel_of_rank_four():
    kernels = cs.conv_kernels(PARAMS)
    assert list(kernels) == ["conv/kernel"]
    assert kernels["conv/kernel"] is PARAMS["conv"]["kernel"]


def test_linen_convs_and_no_scanned_stack():
    _, params, _ = network_of("Linen")
    ranks = {leaf.ndim for leaf in jax.tree.leaves(params)}
    assert ranks == {1, 2, 4, 5}
    found = shapes(params)
    assert found["Conv_1/kernel"] == (3, 2, 1, 8)
    assert list(found) == [
        "ConvTranspose_0/kernel",
        "Conv_0/kernel",
        "Conv_1/kernel",
        "Conv_2/kernel",
        "WeightNorm_0/layer_instance/kernel",
    ]
    mask = jax.tree.map(lambda x: x.ndim == 5, params)
    assert list(shapes(params, mask=mask).values()) == [(2, 3, 3, 10, 10)]


@pytest.fixture(scope="module")
def nnx_state():
    sizes = {"num_heads": 2, "in_features": 4, "decode": False}

    def make():
        rngs = nnx.Rngs(0)
        blocks = nnx.List([nnx.Conv(3, 4, (n, 1), rngs=rngs) for n in (1, 2)])
        return nnx.Dict(
            attention=nnx.MultiHeadAttention(**sizes, rngs=rngs), blocks=blocks
        )

    return nnx.state(nnx.eval_shape(make), nnx.Param)


def test_nnx_convs_and_no_attention(nnx_state):
    assert nnx_state["attention"]["query"]["kernel"].ndim == 3
    expected = {f"blocks/{n}/kernel": (n + 1, 1, 3, 4) for n in range(2)}
    for state in (nnx_state, nnx.as_pure(nnx_state), nnx.to_pure_dict(nnx_state)):
        assert shapes(state) == expected


class EquinoxNet(eqx.Module):
    conv: eqx.nn.Conv2d
    temporal: eqx.nn.Conv1d
    layers: list
    kernel: jax.Array  # the other layout's name

    def __init__(self):
        key = jax.random.key(0)
        self.conv = eqx.nn.Conv2d(3, 4, (3, 2), key=key)
        self.temporal = eqx.nn.Conv1d(4, 4, 3, key=key)
        self.layers = [jax.nn.relu, eqx.nn.Linear(4, 2, key=key)]
        self.kernel = jnp.ones((3, 3, 1, 1))

    def __call__(self, x):
        pytest.fail("a mask that is a module was called")


def test_equinox_convs():
    model = EquinoxNet()
    expected = {"conv/weight": (3, 2, 3, 4)}
    assert shapes(model, layout="OIHW") == expected
    trainable = eqx.filter(model, eqx.is_inexact_array)  # with None for the others
    assert shapes(trainable, layout="OIHW") == expected
    kernel = cs.conv_kernels(model, layout="OIHW")["conv/weight"]
    np.testing.assert_array_equal(kernel, jnp.transpose(model.conv.weight, (2, 3, 1, 0)))
    assert shapes(model) == {"kernel": (3, 3, 1, 1)}
    # Not by rank: a bias has shape (M, 1, 1). The mask is a module that can be called.
    mask = jax.tree.map(lambda x: x.shape == (4, 4, 3), trainable)
    temporal = {"temporal/weight": (3, 4, 4)}
    assert shapes(trainable, layout="OIHW", mask=mask) == temporal


def test_numpy_leaves_count_and_none_is_passed_over():
    params = {"a": {"kernel": None}, "b": {"kernel": np.ones((1, 1, 1, 2), np.float32)}}
    assert isinstance(cs.conv_kernels(params)["b/kernel"], jax.Array)
    for mask in (None, True, {"a": True, "b": True}):
        assert shapes(params, mask=mask) == {"b/kernel": (1, 1, 1, 2)}


# With a mask.

VOLUME_AND_TEMPORAL = {"temporal/kernel": (3, 2, 4), "volume/kernel": (1, 2, 1, 2, 4)}


@pytest.mark.parametrize(
    "mask",
    [
        jax.tree.map(lambda x: x.ndim in (3, 5), PARAMS),
        lambda params: jax.tree.map(lambda x: x.ndim in (3, 5), params),
        dict.fromkeys(PARAMS, False) | {"temporal": True, "volume": {"kernel": True}},
        dict.fromkeys(PARAMS, np.False_) | {"temporal": np.True_, "volume": True},
    ],
    ids=["whole", "callable", "prefix", "numpy"],
)
def test_exactly_the_true_leaves_count(mask):
    assert shapes(PARAMS, mask=mask) == VOLUME_AND_TEMPORAL


def test_mask_decides_whatever_the_name():
    mask = jax.tree.map(lambda x: x.shape == (1, 1, 1, 2), PARAMS)
    assert shapes(PARAMS, mask=mask) == {"head/kernel_scale": (1, 1, 1, 2)}


@pytest.mark.parametrize("made_from", [lambda state: state, nnx.as_pure])
@pytest.mark.parametrize("used_on", [lambda state: state, nnx.as_pure])
def test_nnx_mask_fits_with_and_without_the_boxes(nnx_state, made_from, used_on):
    def not_pointwise(params):
        return jax.tree.map(lambda x: x.ndim == 4 and x.shape[:2] != (1, 1), params)

    mask = not_pointwise(made_from(nnx_state))
    expected = {"blocks/1/kernel": (2, 1, 3, 4)}
    assert shapes(used_on(nnx_state), mask=mask) == expected
    assert shapes(used_on(nnx_state), mask=not_pointwise) == expected


def test_layout_of_three_spatial_axes():
    params = {"weight": jnp.ones((4, 2, 5, 6, 7))}
    expected = {"weight": (5, 6, 7, 2, 4)}
    assert shapes(params, mask=True, layout="OIHW") == expected


# Errors.

CONV = {"conv": PARAMS["conv"]}
NO_LEAF = r"mask.*no leaf for '(temporal|volume|head)"


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        (
            {"head": {"kernel": jnp.ones((4, 2))}},
            {},
            r"params has no conv kernel.*'kernel' of rank 4.*head/kernel \(4, 2\)",
        ),
        (PARAMS, {"layout": "OIHW"}, "'weight' of rank 4.*conv/kernel"),
        (PARAMS, {"mask": jax.tree.map(lambda _: False, PARAMS)}, "mask is True"),
        ({}, {}, "params has no conv kernel.*no leaves"),
        (None, {}, "params has no conv kernel"),
        (PARAMS, {"layout": "HWCM"}, "layout is 'HWCM'.*'HWIO' or 'OIHW'"),
        (PARAMS, {"mask": {"conv": True}}, NO_LEAF),
        (CONV, {"mask": {"conv": True, "decoder": True}}, "mask has.*'decoder'"),
        (
            CONV,
            {"mask": {"conv": {"kernel": {"deep": True}, "bias": False}}},
            "mask has.*'conv/kernel/deep'",
        ),
        (PARAMS, {"mask": jax.tree.map(jnp.ndim, PARAMS)}, "mask has 1.*True or False"),
        (PARAMS, {"mask": True}, r"conv/bias.*\(4,\).*rank 1.*3, 4 or 5"),
        ({"kernel": jnp.ones((3, 3, 1, 2), int)}, {}, "kernel.*int32.*floating"),
    ],
)
def test_rejects(params, options, message):
    with pytest.raises(ValueError, match=message):
        cs.conv_kernels(params, **options)


def test_error_shortens_a_long_tree():
    params = {f"layer_{i}": jnp.ones(3) for i in range(500)}
    with pytest.raises(ValueError, match="more") as error:
        cs.conv_kernels(params)
    assert len(str(error.value)) < 1000


def test_conv_mask_is_true_for_exactly_the_kernels():
    params = CONV | {"dense": {"kernel": jnp.ones((8, 2))}, "gone": None}
    expected = {
        "conv": {"kernel": True, "bias": False},
        "dense": {"kernel": False},
        "gone": None,
    }
    assert cs.conv_mask(params) == expected
    decay = optax.add_decayed_weights(0.5, cs.conv_mask)
    updates = jax.tree.map(jnp.zeros_like, params)
    updates, _ = decay.update(updates, decay.init(params), params)
    assert jax.tree.map(lambda leaf: bool((leaf != 0).all()), updates) == expected


# With layers.


def network(params, x):
    """A strided, a grouped and a scanned conv, one that is tied, and a dense layer."""
    x = convolve(x, params["stem"]["w"], (2, 2))
    x = convolve(x, params["grouped"]["w"], feature_group_count=2)
    x, _ = jax.lax.scan(lambda x, k: (convolve(x, k), None), x, params["stack"]["w"])
    x = x + jax.lax.conv_transpose(
        convolve(x, params["tied"]["w"]), params["tied"]["w"], (1, 1), "SAME"
    ).mean((1, 2), keepdims=True)
    return x.mean((1, 2)) @ params["dense"]["w"]


SHAPES = {
    "stem": (3, 3, 2, 4),
    "grouped": (3, 3, 2, 4),
    "stack": (2, 3, 3, 4, 4),
    "tied": (1, 1, 4, 4),
    "dense": (4, 2),
}
NETWORK = {name: {"w": jnp.ones(shape)} for name, shape in SHAPES.items()}
IMAGES = jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32)
LAYERS = cs.conv_layers(network, NETWORK, IMAGES)
EXPECTED = {f"{name}/w": SHAPES[name] for name in ("stem", "grouped", "stack", "tied")}


def test_layers_say_which_leaves_count_and_how():
    assert shapes(NETWORK, layers=LAYERS) == EXPECTED
    assert cs.conv_mask(NETWORK, layers=LAYERS) == {
        name: {"w": name != "dense"} for name in NETWORK
    }


def test_a_mask_chooses_among_the_layers():
    mask = {name: name in ("stem", "dense") for name in NETWORK}
    assert shapes(NETWORK, layers=LAYERS, mask=mask) == {"stem/w": SHAPES["stem"]}


def test_layers_of_variables_serve_their_params():
    """Linen's `apply` takes variables; the optimizer sees what is under "params"."""
    layers = cs.conv_layers(
        lambda variables, x: network(variables["params"], x), {"params": NETWORK}, IMAGES
    )
    assert shapes({"params": NETWORK}, layers=layers).keys() == {
        f"params/{path}" for path in EXPECTED
    }
    assert shapes(NETWORK, layers=layers) == EXPECTED


@pytest.mark.parametrize("hidden", ["none", "masked", "prefix"])
def test_layers_whose_leaves_are_hidden_are_passed_over(hidden):
    absent = {"none": {"w": None}, "masked": {"w": optax.MaskedNode()}}
    params = NETWORK | {"stem": absent.get(hidden, optax.MaskedNode())}
    expected = {path: shape for path, shape in EXPECTED.items() if path != "stem/w"}
    assert shapes(params, layers=LAYERS) == expected
    assert cs.conv_mask(params, layers=LAYERS)["stem"] == params["stem"]


def test_a_leaf_that_is_read_in_two_ways_has_two_kernels():
    def tied(params, x):
        kernel = params["w"]
        x = convolve(x, kernel, (2, 2))
        return jax.lax.conv_transpose(x, kernel, (2, 2), "SAME", transpose_kernel=True)

    params = {"w": jnp.ones((3, 3, 2, 4))}
    layers = cs.conv_layers(tied, params, IMAGES)
    assert shapes(params, layers=layers) == {"w": (3, 3, 2, 4), "w#2": (3, 3, 4, 2)}


# Abstract trees, shared arrays, masks that can be called.


@pytest.mark.parametrize("layout", ["HWIO", "OIHW"])
def test_abstract_trees(layout):
    name = {"HWIO": "kernel", "OIHW": "weight"}[layout]
    params = {"conv": {name: jax.ShapeDtypeStruct((2, 3, 4, 5), jnp.bfloat16)}}
    (kernel,) = cs.conv_kernels(params, layout=layout).values()
    assert kernel.dtype == jnp.bfloat16
    assert kernel.shape == {"HWIO": (2, 3, 4, 5), "OIHW": (4, 5, 3, 2)}[layout]
    assert cs.conv_mask(params, layout=layout) == {"conv": {name: True}}


def test_an_array_under_two_paths_counts_once():
    kernel = jnp.ones((1, 2, 2, 4))
    params = {name: {"kernel": kernel} for name in "ab"}
    assert shapes(params) == {"a/kernel": (1, 2, 2, 4)}
    assert cs.total_similarity(params) == cs.total_similarity(params["a"])
    result, history = cs.minimize_similarity(params, 2, optimizer=optax.sgd(1e-3))
    assert history.norms.keys() == {"a/kernel"}
    assert np.all(result["a"]["kernel"] < 1)
    np.testing.assert_array_equal(result["a"]["kernel"], result["b"]["kernel"])


# What parameters alone do not say.


def test_several_kernels_of_one_input_channel_are_warned_of():
    params = {f"conv_{i}": {"kernel": jnp.ones((3, 3, 1, 4))} for i in range(7)}
    with pytest.warns(UserWarning, match=r"conv_0/kernel.*3 more.*conv_layers\(apply"):
        cs.conv_kernels(params)
    cs.conv_kernels({"stem": params["conv_0"]})
    cs.conv_mask(params)  # to which groups do not matter
    cs.total_similarity(params, feature_group_count=1)

    def apply(params, x):
        return [convolve(x, k["kernel"], feature_group_count=2) for k in params.values()]

    layers = cs.conv_layers(apply, params, IMAGES)
    assert len(cs.conv_kernels(params, layers=layers)) == 7


@pytest.mark.parametrize("biases", [{"bias": jnp.ones((5, 2, 4))}, {}])
def test_stacks_of_attention_kernels_are_warned_of(biases):
    query = {"kernel": jnp.ones((5, 8, 2, 4))} | biases
    params = {"block": {"query": query, "norm": {"scale": jnp.ones((5, 8))}}}
    with pytest.warns(UserWarning, match=r"block/query/kernel.*conv_layers\(apply"):
        cs.conv_kernels(params)
    mask = jax.tree.map(lambda x: x.ndim == 4, params)
    assert len(cs.conv_kernels(params, mask=mask)) == 1


@pytest.mark.parametrize(
    ("params", "layers", "message"),
    [
        (NETWORK, EXPECTED, "layers is .*conv_layers"),
        ({"stem": NETWORK["stem"]}, LAYERS, "layers names 'grouped/w', which params"),
        (
            NETWORK | {"stem": {"w": jnp.ones((5, 3, 2, 4))}},
            LAYERS,
            r"stem/w has shape \(5, 3, 2, 4\) in params.*layers.*\(3, 3, 2, 4\)",
        ),
        (NETWORK | {"stem": {"w": jnp.ones((3, 3, 2, 4), int)}}, LAYERS, "int32.*float"),
        (jax.tree.map(lambda _: None, NETWORK), LAYERS, "no conv kernel.*layers"),
    ],
)
def test_rejects_layers_of_another_network(params, layers, message):
    with pytest.raises(ValueError, match=message):
        cs.conv_kernels(params, layers=layers)
