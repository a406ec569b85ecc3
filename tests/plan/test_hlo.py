"""What is read from the text of compiled programs, in the forms that XLA prints it in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax.plan import hlo

# As XLA prints them for a TPU, a GPU and a CPU, shortened where nothing is read.
TPU_REDUCE = (
    "  %all-reduce.1 = (f32[3,3,16]{2,1,0:T(8,128)}, f32[7]{0:T(256)}) all-reduce(%a, %b), "
    "channel_id=1, replica_groups={{0,1}}, to_apply=%add"
)
GPU_REDUCE = (
    "  %all-reduce-start = f32[1024]{0} all-reduce-start(%a), channel_id=1\n"
    "  ROOT %all-reduce-done = f32[1024]{0} all-reduce-done(%all-reduce-start)"
)
GATHER = (
    "  %g = (f32[4]{0}, f32[8]{0}) all-gather-start(%a), dimensions={0}\n"
    "  %d = f32[8]{0} all-gather-done(%g)"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TPU_REDUCE, [("all-reduce", 1, 4 * (144 + 7))]),
        (GPU_REDUCE, [("all-reduce", 1, 4096)]),
        (GATHER, [("all-gather", 1, 32)]),
        (f"{TPU_REDUCE}\n{GATHER}", [("all-reduce", 1, 604), ("all-gather", 1, 32)]),
        ("  %a = f32[4]{0} add(%b, %c)", []),
        ('  %a = f32[4]{0} add(%b, %c), metadata={op_name="all-reduce(x)"}', []),
    ],
)
def test_collectives_by_kind_and_size(text, expected):
    assert [(c.kind, c.count, c.bytes) for c in hlo.collectives(text)] == expected


@pytest.mark.parametrize(
    ("text", "in_memory", "expected"),
    [
        ("f32[2,3]{1,0}", False, 24),
        ("bf16[2,3]{1,0:T(8,128)(2,1)S(1)}", False, 12),
        ("bf16[2,3]{1,0:T(8,128)(2,1)S(1)}", True, 0),
        ("bf16[2,3]{1,0:T(8,128)(2,1)}", True, 12),
        ("pred[5]{0}, u8[5], s32[], token[]", False, 14),
        ("f8e4m3fn[16]{0}", False, 16),
        ("s4[16]{0}", False, 8),
    ],
)
def test_bytes_of_shapes(text, in_memory, expected):
    assert hlo.shape_bytes(text, in_memory=in_memory) == expected


def test_traffic_is_what_kernels_read_and_write():
    text = """
%fused (p: f32[100]) -> f32[100] {
  %p = f32[100]{0} parameter(0)
  %q = f32[100]{0} multiply(%p, %p)
  ROOT %r = f32[100]{0} add(%q, %p)
}

ENTRY %main (a: f32[100]) -> f32[100] {
  %a = f32[100]{0} parameter(0)
  %f = f32[100]{0} fusion(%a), kind=kLoop, calls=%fused
  %v = (f32[100]{0:S(1)}, f32[100]{0}, u32[]{:S(2)}) copy-start(%f)
  %w = f32[100]{0:S(1)} copy-done(%v)
  ROOT %b = f32[100]{0} negate(%w)
}
"""
    # The fusion reads and writes; the copy reads; the last one writes.
    assert hlo.traffic(text) == 400 + 400 + 400 + 400


def test_loops_and_branches_are_kernels_too():
    text = """
%body (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %n = f32[8]{0} negate(%p)
}

%cond (p: f32[8]) -> pred[] {
  %p = f32[8]{0} parameter(0)
  ROOT %c = pred[] constant(true)
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %w = f32[8]{0} while(%a), condition=%cond, body=%body
}
"""
    assert hlo.traffic(text) == 64


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("in_a_loop", [False, True])
def test_a_slice_written_into_an_array_moves_the_slice_and_in_a_loop_the_array(fused, in_a_loop):
    """Two indices beside it; the array of 400 bytes, the slice of 40."""
    types = "f32[100]{0} %a, f32[10]{0} %s, s32[] %i"
    write = "f32[100]{0} dynamic-update-slice(%a, %s, %i)"
    kernel = "f32[100]{0} fusion(%a, %s, %i), kind=kLoop, calls=%fused" if fused else write
    parameters = "\n".join(
        f"  {name} = {kind} parameter({n})"
        for n, (kind, name) in enumerate(each.split(" ") for each in types.split(", "))
    )
    text = f"""
%fused (a: f32[100], s: f32[10], i: s32[]) -> f32[100] {{
{parameters}
  ROOT %u = {write}
}}

%body (a: f32[100], s: f32[10], i: s32[]) -> f32[100] {{
{parameters}
  ROOT %k = {kernel}
}}

ENTRY %main (a: f32[100], s: f32[10], i: s32[]) -> f32[100] {{
{parameters}
  ROOT %k = {"f32[100]{0} while(%a), condition=%none, body=%body" if in_a_loop else kernel}
}}
"""
    assert hlo.traffic(text) == (400 + 400 + 40 + 4 if in_a_loop else 40 + 40 + 4)


def test_traffic_of_a_real_program():
    """A sum of two arrays: XLA on this machine reads both and writes one, fused or not."""
    x = jax.ShapeDtypeStruct((1000, 1000), np.float32)
    compiled = jax.jit(lambda a, b: a * b + 1).lower(x, x).compile()
    assert hlo.traffic(compiled.as_text()) == pytest.approx(12e6, rel=0.01)
    assert hlo.collectives(compiled.as_text()) == []


def test_wide_numbers_and_calls_of_the_host_are_seen():
    x = jax.ShapeDtypeStruct((3,), np.float32)
    plain = jax.jit(jnp.sin).lower(x)
    assert not hlo.has_float64(plain.as_text())
    assert not hlo.calls_host(plain.as_text())
    with jax.enable_x64(True):
        wide = jax.jit(lambda a: a.astype(jnp.float64) * 2).lower(x)
    assert hlo.has_float64(wide.as_text())
    assert hlo.has_float64(wide.compile().as_text())
    asking = jax.jit(lambda a: jax.pure_callback(np.sin, x, a)).lower(x)
    assert hlo.calls_host(asking.as_text())
