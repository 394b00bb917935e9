"""The Triton kernels of softmax attention compile for GPUs, on a machine without one, and fit into what these have."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")
CODE = """
import sys
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from windeye.kernels.softmax.problem import problem_of
from windeye.kernels.softmax.triton import gradients, launch, output
from windeye.patterns import from_spec

INPUTS = {"q", "k", "v", "out", "grad_out", "grad_q", "grad_k", "grad_v"}
WIDE = {"lse", "delta"}
TABLES = {"begin", "middle", "others", "start", "span", "place"}
capability, name, head_dim, spec, *grid = sys.argv[1:]
dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[name]
q = torch.zeros(1, *map(int, grid), 1, int(head_dim), dtype=dtype, device="meta")
problem = problem_of(from_spec(spec), q, q, q, scale=1.0)
for kernel in (output.attention, gradients.grad_query, gradients.grad_key_value):
    chosen = launch.sizes(problem, backward=kernel is not output.attention)
    work = launch.plan(problem.bound, chosen.queries, chosen.keys)
    hidden = torch.zeros(1, dtype=torch.bool)
    constants = launch.Call.of(problem, q, q, q, hidden).options(work, chosen)
    constants["PRECISION"] = "tf32x3" if dtype == torch.float32 else "tf32"
    options = {key: constants.pop(key) for key in ("num_warps", "num_stages")}
    types, values = {}, {}
    for place, name_ in enumerate(kernel.arg_names):
        if name_ in constants or name_ in ("q_dim", "k_dim", "v_dim"):
            types[name_], values[(place,)] = "constexpr", constants.get(name_, 1)
        elif name_ in INPUTS:
            types[name_] = "*" + name
        elif name_ in WIDE:
            types[name_] = "*fp32"
        elif name_ == "hidden":
            types[name_] = "*u8"
        elif name_ in TABLES or "_axis" in name_:
            types[name_] = "*i32"
        else:
            types[name_] = "fp32" if name_.startswith("scale") else "i32"
    aligned = {(place,): [["tt.divisibility", 16]] for place, name_ in enumerate(types) if types[name_][0] == "*"}
    source = ASTSource(kernel, types, values, aligned)
    compiled = compile(source, target=GPUTarget("cuda", int(capability), 32), options=options)
    print(kernel.__name__, compiled.metadata.shared)
"""
SHARED = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10}
"""Bytes a block of threads may use: A100, L4 and RTX 40, H100."""


@pytest.mark.parametrize(
    ("capability", "case"),
    [
        (90, ("bf16", "128", "Neighborhood(kernel_size=(18, 24, 24), stride=(16, 8, 8))", "30", "48", "80")),
        (80, ("fp32", "64", "Sliding(window=256)", "4096")),
        (89, ("bf16", "64", "Neighborhood(kernel_size=13, dilation=2)", "64", "64")),
    ],
    ids=str,
)
def test_compiles_and_fits(capability, case, tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", CODE, str(capability), *case]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    used = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    assert set(used) == {"attention", "grad_query", "grad_key_value"}
    assert max(used.values()) <= SHARED[capability], used
