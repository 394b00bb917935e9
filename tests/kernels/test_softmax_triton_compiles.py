"""The Triton kernels of softmax attention compile for GPUs, on a machine without one, fit into what these have, and
keep tensor cores busy: rows are fetched while products run, and no product waits for the one before it."""

import pytest

pytest.importorskip("triton")
from windeye.bench.compiler import Call, programs

SHARED = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10}
"""Bytes a block of threads may use: A100, L4 and RTX 40, H100."""
SPILLED = {"bfloat16": 256, "float16": 256, "float32": 512}
"""Bytes of a thread: addresses that are fetched again, no tile. Products of float32 are three on tensor cores, for
which the compiler keeps more than fits."""
KERNELS = {"attention", "grad_query", "grad_key_value"}


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        (90, Call("Neighborhood(kernel_size=(18, 24, 24), stride=(16, 8, 8))", (30, 48, 80), padding=True)),
        (90, Call("Full()", (1000,), kv_heads=1)),
        (90, Call("Neighborhood(kernel_size=(18, 24, 24))", (30, 48, 80), kv_heads=1, tiles=True)),
        (90, Call("Neighborhood(kernel_size=13)", (64, 64), head_dim=64, value_dim=64, extra=100)),
        (80, Call("Sliding(window=256)", (4096,), dtype="float32", head_dim=64, value_dim=64)),
        (
            89,
            Call(
                "Neighborhood(kernel_size=13, dilation=2)", (64, 64), dtype="float16", head_dim=32, value_dim=32,
                offsets=25, dropout_p=0.1,
            ),
        ),
    ],
    ids=str,
)  # fmt: skip
def test_compiles_and_fits(capability, call):
    call = Call(**vars(call) | {"capability": capability, "shared_memory": SHARED[capability]})
    found = programs(call)
    also = {"grad_bias": call.offsets, "grad_key_value of extra keys": call.extra}
    assert set(found) == KERNELS | {name for name, there in also.items() if there}
    for name, program in found.items():
        assert program.shared <= SHARED[capability], program
        assert program.spilled <= SPILLED[call.dtype], program
        # In vectors of 16 bytes, while products run; rows of float32 that two products read either way round are not.
        assert program.ahead > 0 or call.tiles or (call.dtype == "float32" and name == "grad_key_value"), program
        assert (program.tiles > 0) == call.tiles, program
        walks = 1 if name == "grad_bias" else 2  # without masks, and with
        assert len(program.loops) == walks + (call.extra > 0 and name in ("attention", "grad_query")), program
        if capability == 90:
            assert all(2 <= 2 * loop.waits < loop.products for loop in program.loops), program


def test_what_does_not_compile_is_told():
    with pytest.raises(RuntimeError, match=r"Triton could not compile Call.*float64"):
        programs(Call("Full()", (64,), dtype="float64"))
