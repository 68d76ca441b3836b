"""Counting what a compiled program does: programs written by hand, and real ones."""

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmark import hlo

# Sixteen floats come in. A fusion reads four of them and writes as many; a loop of three
# rounds updates one float in place, and adds one to its counter; an all-reduce ends it.
PROGRAM = """\
HloModule jit_f

%fused_slice (p.0: f32[16]) -> f32[4] {
  %p.0 = f32[16]{0} parameter(0)
  ROOT %s = f32[4]{0} slice(%p.0), slice={[0:4]}
}

%fused_update (p.1: f32[16], p.2: f32[1], p.3: s32[]) -> f32[16] {
  %p.3 = s32[] parameter(2)
  %p.2 = f32[1]{0} parameter(1)
  %p.1 = f32[16]{0} parameter(0)
  ROOT %u = f32[16]{0} dynamic-update-slice(%p.1, %p.2, %p.3)
}

%body (t: (s32[], f32[16], f32[1])) -> (s32[], f32[16], f32[1]) {
  %t = (s32[], f32[16]{0}, f32[1]{0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %x = f32[16]{0} get-tuple-element(%t), index=1
  %v = f32[1]{0} get-tuple-element(%t), index=2
  %new = f32[16]{0} fusion(%x, %v, %i), kind=kLoop, calls=%fused_update
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  ROOT %out = (s32[], f32[16]{0}, f32[1]{0}) tuple(%next, %new, %v)
}

%condition (t.1: (s32[], f32[16], f32[1])) -> pred[] {
  %t.1 = (s32[], f32[16]{0}, f32[1]{0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

%fused_zero () -> f32[8] {
  %zero = f32[] constant(0)
  ROOT %zeros = f32[8]{0} broadcast(%zero), dimensions={}
}

ENTRY %main (a: f32[16], n: s32[], w: f32[1]) -> f32[4] {
  %a = f32[16]{0} parameter(0)
  %n = s32[] parameter(1)
  %w = f32[1]{0} parameter(2)
  %first = f32[4]{0} fusion(%a), kind=kLoop, calls=%fused_slice
  %none = f32[8]{0} fusion(), kind=kLoop, calls=%fused_zero
  %init = (s32[], f32[16]{0}, f32[1]{0}) tuple(%n, %a, %w)
  %loop = (s32[], f32[16]{0}, f32[1]{0}) while(%init), condition=%condition, \
body=%body, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %sum = f32[4]{0} all-reduce(%first), to_apply=%add
}
"""


def test_kernels_and_bytes_of_a_program_written_by_hand():
    slices = 16 + 16  # read and written
    loop = 3 * ((4 + 4 + 4) + (4 + 4 + 4))  # value, index, result; counter, one, result
    zeros = 8 * 4
    assert hlo.work(PROGRAM) == (2 + 3 * 2 + 1, slices + zeros + loop + 16 + 16)


def test_collectives_and_their_bytes():
    assert hlo.exchanged(PROGRAM) == {"all-reduce": [16]}
    done = "\n  %d = f32[8] all-gather-done(%g)"
    for results, size in (
        ("(f32[2]{0}, f32[8]{0}) all-gather", 32),
        ("((f32[2]{0}, bf16[2]{0}), (f32[8]{0}, bf16[8]{0})) all-gather", 48),
        ("(f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute", 16),
        ("f32[4]{0} all-reduce", 16),
    ):
        line = f"  %g = {results}-start(%x, %y), dimensions={{0}}{done}"
        assert hlo.exchanged(line) == {results.split()[-1]: [size]}


def test_a_collective_that_is_taken_apart_counts_once():
    line = "  %g = f32[4] all-gather(%x), channel_id={}, dimensions={{0}}\n"
    lines = [line.format(channel) for channel in (7, 8, 7)]
    assert hlo.exchanged("".join(lines)) == {"all-gather": [16, 16]}


@pytest.mark.parametrize(
    ("function", "kernels", "arrays"),
    [(lambda x, y: x + y, 1, 3), (lambda x, y: (x @ y) @ y, 2, 6)],
    ids=["sum", "products"],
)
def test_a_real_program(function, kernels, arrays):
    x = jnp.ones((128, 128))
    program = jax.jit(function).lower(x, x).compile()
    assert hlo.work(program.as_text()) == (kernels, arrays * x.nbytes)
