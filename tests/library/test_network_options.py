"""Every function of a network says in the same words what is wrong with an option."""

import jax
import jax.numpy as jnp
import pytest

import convsim_jax as cs

PARAMS = {
    "a": {"kernel": jnp.ones((2, 2, 2, 4)), "bias": jnp.ones(4)},
    "b": {"kernel": jnp.ones((1, 2, 2, 6))},
}
FUNCTIONS = {
    "total": cs.total_similarity,
    "report": cs.similarity_report,
    "minimize": lambda params, **options: cs.minimize_similarity(params, 1, **options),
    "transform": lambda params, **options: cs.add_convolutional_similarity(
        0.5, **options
    ).init(params),
}
NO_PATH = "feature_group_count names 'z/kernel'.*a/kernel.*b/kernel"


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": "some"}, "pairs is 'some'.*'all' or 'adjacent'"),
        ({"channels": "mixed"}, "channels is 'mixed'.*'matched' or 'cross'"),
        ({"layout": "OHWI"}, "layout is 'OHWI'.*'HWIO' or 'OIHW'"),
        ({"feature_group_count": 4}, "feature_group_count is 4.*6 output.*b/kernel"),
        ({"feature_group_count": {"a/kernel": 3}}, "feature_group_count is 3.*a/kernel"),
        ({"feature_group_count": {"z/kernel": 2}}, NO_PATH),
        ({"mask": {"a": True}}, "mask has no leaf for 'b/kernel'"),
        ({"mask": lambda p: jax.tree.map(lambda _: False, p)}, "no conv kernel"),
    ],
)
def test_rejects(function, options, message):
    with pytest.raises(ValueError, match=message):
        function(PARAMS, **options)


@pytest.mark.parametrize("name", ["total", "minimize", "transform"])
def test_normalize_is_a_bool(name):
    with pytest.raises(ValueError, match=r"normalize is 1.*True or False"):
        FUNCTIONS[name](PARAMS, normalize=1)
