"""The Triton kernels compile for GPUs, on a machine without one, and fit into what these have."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")
CODE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from windeye.kernels.recurrence.features import width
from windeye.kernels.recurrence.triton import gradients, launch, output, states

INPUTS = {"q", "k", "v", "g", "x", "y", "out", "grad_q", "grad_k", "grad_v"}
WIDE = {"factor", "last", "decay", "coefficient", "states", "pulls", "start", "end", "denominator", "grad_decay"}
TABLES = {"left", "right", "chunk_table", "chunks_of_sequence"}
DENSE = {"q_dim", "k_dim", "x_dim", "v_column", "g_column", "y_column"}
capability, dtype, decay, taylor, head_dim, value_dim = int(sys.argv[1]), *sys.argv[2:4], *map(int, sys.argv[4:])
features = width("taylor2" if taylor else None, head_dim)
constants = {
    "DECAY": decay, "TAYLOR": bool(taylor), "NORMALIZE": bool(taylor), "head_dim": head_dim, "features": features,
    "columns": value_dim, "state_columns": value_dim + taylor, "HAS_START": True, "HAS_END": True, "REVERSE": True,
    "CHUNK": 64, "PRECISION": "tf32x3" if dtype == "fp32" else "tf32",
}
small = {gradients.grad_query_key: launch.LARGEST_GRADIENT_TILE}
for kernel in (states.walk, output.chunk_output, gradients.grad_query_key, gradients.grad_value):
    constants |= launch.tiles(head_dim, features, value_dim, small.get(kernel, launch.LARGEST_TILE))
    types, values = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants or name in DENSE:
            types[name], values[(place,)] = "constexpr", constants.get(name, 1)
        elif name in INPUTS | WIDE | TABLES:
            types[name] = "*" + (dtype if name in INPUTS else "fp32" if name in WIDE else "i32")
        else:
            types[name] = "fp32" if name in ("scale", "epsilon") else "i32"
    aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(types) if types[name][0] == "*"}
    target = GPUTarget("cuda", capability, 32)
    compiled = compile(ASTSource(kernel, types, values, aligned), target=target, options=launch.LAUNCH)
    print(kernel.__name__, compiled.metadata.shared)
"""
SHARED = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10}
"""Bytes a block of threads may use: A100, L4 and RTX 40, H100."""


@pytest.mark.parametrize(
    ("capability", "case"),
    [
        (80, ("bf16", "token", 0, 128, 128)),
        (89, ("fp32", "token", 1, 16, 64)),
        (90, ("fp32", "head", 0, 64, 64)),
    ],
    ids=str,
)
def test_compiles_and_fits(capability, case, tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", CODE, str(capability), *map(str, case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    used = dict(line.split() for line in done.stdout.splitlines())
    assert set(used) == {"walk", "chunk_output", "grad_query_key", "grad_value"}
    assert {name: int(bytes_) for name, bytes_ in used.items() if int(bytes_) > SHARED[capability]} == {}
