"""Sentences on the paper's claims, of made-up outcomes."""

import numpy as np
import pytest

from experiments.study import claims
from experiments.study.findings import findings
from experiments.study.settings import SETTINGS
from experiments.study.sizes import parameters, sizes
from tests.experiments.compare.study_outcomes import BASE, final, trial_of

UP, MORE = (2.0, 2.5, 2.0, 2.5, 2.0), (4.0, 4.5, 4.5, 4.0, 4.0)
ABOVE = (3.0, 3.5, 3.5, 3.0, 3.0)
NONE = (1.0, -1.0, 0.5, -0.5, 0.1)
SIMILARITY = 0.5


def made_up(base=BASE, similarity=SIMILARITY, **gains):
    named = {trial_of("none"): final(base, similarity=SIMILARITY)}
    for name, gain in gains.items():
        values = [x + y for x, y in zip(base, gain, strict=True)]
        outcome = final(values, similarity=similarity)
        named[trial_of(name.replace("_", "-"))] = outcome
    return findings(named)


def section_of(text, number):
    """The lines of a claim."""
    rest = text.split(f"\n{number}. ", 1)[1]
    return rest.split(f"\n{number + 1}. ", 1)[0].splitlines()


def test_a_claim_holds_where_its_interval_is_beyond_zero():
    found = {
        "one": made_up(scale_free_init=UP, paper_init=MORE, shrunk=UP),
        "two": made_up(scale_free_init=NONE),
    }
    _, counts, _, paper, scale_free = section_of(claims.claims(found), 2)
    assert counts == (
        "   **Holds of the paper's loss in 1 of 1, of scale-free forms in 1 of 2 "
        "measurements.**"
    )
    assert paper == "   - paper-init: holds in 1 of 1 (+2.00 ± 0.44 in one)"
    mean, reach = 0.02, 2.776445 * np.std(NONE, ddof=1) / 5**0.5
    assert scale_free == (
        "   - scale-free-init: holds in 1 of 2 "
        f"(+2.20 ± 0.34 in one, {mean:+.2f} ± {reach:.2f} in two)"
    )


@pytest.mark.parametrize(
    ("similarity", "holds"),
    [(0.25, "1 of 1"), (0.5, "0 of 1"), (0.75, "0 of 1, the opposite in 1")],
)
def test_maps_are_less_similar_where_they_lie_below_the_baseline_s(similarity, holds):
    found = {"one": made_up(scale_free_init=UP, similarity=similarity)}
    lines = [x for x in section_of(claims.claims(found), 1) if x.startswith("   - ")]
    # The made-up maps are half as alike in the end, and half of that behind the
    # activation.
    factors = 1, 0.5**0.5, 1 / 2, 1 / 4
    changes = [(similarity - 0.5) * factor for factor in factors]
    for line, change in zip(lines, changes, strict=True):
        assert line == (
            f"   - scale-free-init: holds in {holds} ({change:+.3f} ± 0.000 in one)"
        )


def test_what_nothing_is_known_of_is_not_measured_yet():
    text = claims.claims({"one": made_up(zero_mean=UP)})
    for claim in (2, 3, 6):
        assert section_of(text, claim)[1] == "   - not measured yet"
    assert section_of(text, 4)[0].endswith("Not measured yet.")
    assert section_of(text, 5)[0].endswith("Not measured yet.")


def test_momentum_is_told_where_the_paper_s_loss_is_known():
    found = {
        "one": made_up(paper_reg=UP, paper_decoupled_reg=MORE),
        "two": made_up(scale_free_reg=UP),
        "three": made_up(paper_reg=NONE, decay=UP),
    }
    reach = 2.776445 * np.std(NONE, ddof=1) / 5**0.5
    assert section_of(claims.claims(found), 6)[1:3] == [
        "   - one: paper-reg +2.20 ± 0.34, paper-decoupled-reg +4.20 ± 0.34",
        f"   - three: paper-reg +0.02 ± {reach:.2f}, decay +2.20 ± 0.34",
    ]


def test_widths_are_compared_with_the_next_wider_baseline():
    lower = [value - 10 for value in BASE]
    found = {
        "quarter-width": made_up(lower, scale_free_scaled=UP, scaled=NONE, shrunk=MORE),
        "batch-norm": made_up(scale_free_scaled=MORE),
    }
    reach = 2.776445 * np.std(BASE, ddof=1) / 5**0.5
    gained = np.array(BASE) + UP
    other = 2.776445 * np.std(gained, ddof=1) / 5**0.5
    third = 2.776445 * np.std(np.array(BASE) + MORE, ddof=1) / 5**0.5
    assert section_of(claims.claims(found), 4)[0].endswith(
        "At half of batch-norm's width, 11,218 parameters and not 33,946, the baseline "
        f"is -10.00 ± {np.hypot(reach, reach):.2f} points from batch-norm's, and "
        f"scale-free-scaled -7.80 ± {np.hypot(reach, other):.2f}. Without the "
        f"similarity, shrunk is -5.80 ± {np.hypot(reach, third):.2f}."
    )


def test_orthogonal_kernels_stand_beside_the_best_form():
    found = {
        "one": made_up(
            cosine_shrunk=ABOVE, shrunk=UP, so_reg=NONE, matched_init=UP, paper_init=MORE
        )
    }
    reach = 2.776445 * np.std(NONE, ddof=1) / 5**0.5
    assert section_of(claims.claims(found), 5)[0].endswith(
        "In one those that make kernels orthogonal gain: cosine-shrunk +3.20 ± 0.34, "
        f"so-reg +0.02 ± {reach:.2f}; the best form of Convolutional Similarity, "
        "paper-init, gains +4.20 ± 0.34 points, paper-init less cosine-shrunk "
        "+1.00 ± 0.00."
    )


def test_parameters_are_counted():
    convs = 9 * (3 * 16 + 16 * 32 + 32 * 64)
    norms = 2 * (16 + 32 + 64)
    dense = (4 * 4 * 64 + 1) * 10
    assert parameters(SETTINGS["batch-norm"].config) == convs + norms + dense


def test_sizes_are_drawn_of_two_widths_at_least():
    found = {"batch-norm": made_up(shrunk=UP), "digits": made_up()}
    assert sizes(found) is None
    figure = sizes(found | {"quarter-width": made_up(scale_free_shrunk=UP)})
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_legend_handles_labels()[1] == ["none", "shrunk", "scale-free-shrunk"]
