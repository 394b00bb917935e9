"""The Triton kernels of softmax attention compile for GPUs, on a machine without one, and fit into what these have.

The calls are those of the backend, on tensors without memory; only the launch of what was compiled is left out.
"""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")
CODE = """
import pathlib
import re
import subprocess
import sys
import tempfile

import torch
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction
from windeye.kernels.softmax import triton as backend
from windeye.kernels.softmax.problem import problem_of
from windeye.kernels.softmax.triton import sizes
from windeye.patterns import from_spec

capability, room, name, head_dim, value_dim, reach, dropout_p, padding, spec, *grid = sys.argv[1:]
binaries = pathlib.Path(triton.backends.nvidia.__file__).parent / "bin"


class Absent:
    def get_current_target(self):
        return GPUTarget("cuda", int(capability), 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, _device):
        return 0


def compile_only(kernel, *args, run=JITFunction.run, **options):
    compiled = run(kernel, *args, **{**options, "warmup": True})
    with tempfile.NamedTemporaryFile() as file:
        pathlib.Path(file.name).write_bytes(compiled.asm["cubin"])
        command = [binaries / "cuobjdump", "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, spilled = (int(re.search(name + r":(\\d+)", usage)[1]) for name in ("REG", "STACK"))
    ahead = compiled.asm["ptx"].count("cp.async.cg.shared.global")
    print(kernel.__name__, compiled.metadata.shared, registers, spilled, ahead)


sizes.shared_memory = lambda _device: int(room)
driver.set_active(Absent())
JITFunction.run = compile_only
dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[name]
grid = tuple(map(int, grid))
q, v = (torch.zeros(2, *grid, 2, int(dim), dtype=dtype, device="meta") for dim in (head_dim, value_dim))
bias = torch.zeros(2, *[2 * int(reach) + 1] * len(grid), device="meta") if int(reach) else None
hidden = torch.zeros(2, *grid, dtype=torch.bool, device="meta") if int(padding) else None
seed = torch.zeros((), dtype=torch.int64, device="meta")
problem = problem_of(
    from_spec(spec), q, q, v, scale=1.0, dropout_p=float(dropout_p), has_bias=bias is not None,
    has_key_padding=hidden is not None,
)
rest = (bias, hidden, seed)
out, lse = backend.forward(problem, q, q, v, *rest)
backend.backward(problem, q, q, v, *rest, out, lse, out, lse)
"""
SHARED = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10}
"""Bytes a block of threads may use: A100, L4 and RTX 40, H100."""
SPILLED = {"bf16": 256, "fp16": 256, "fp32": 512}
"""Bytes of a thread: addresses that are fetched again, no tile. Products of float32 are three on tensor cores, for
which the compiler keeps more than fits."""
KERNELS = {"attention", "grad_query", "grad_key_value"}


@pytest.mark.parametrize(
    ("capability", "case"),
    [
        (90, ("bf16", 128, 128, 0, 0.0, 1, "Neighborhood(kernel_size=(18, 24, 24), stride=(16, 8, 8))", 30, 48, 80)),
        (80, ("fp32", 64, 64, 0, 0.0, 0, "Sliding(window=256)", 4096)),
        (89, ("fp16", 32, 32, 12, 0.1, 0, "Neighborhood(kernel_size=13, dilation=2)", 64, 64)),
    ],
    ids=str,
)
def test_compiles_and_fits(capability, case, tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", CODE, *map(str, (capability, SHARED[capability], *case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = {line.split()[0]: list(map(int, line.split()[1:])) for line in done.stdout.splitlines()}
    assert set(found) == KERNELS | ({"grad_bias"} if case[3] else set())
    for name, (shared, registers, spilled, ahead) in found.items():
        facts = f"{name}: {shared} bytes shared, {registers} registers, {spilled} bytes spilled, {ahead} fetches ahead"
        assert shared <= SHARED[capability], facts
        assert spilled <= SPILLED[case[0]], facts
        # In vectors of 16 bytes, while products run; rows of float32 that two products read either way round are not.
        assert ahead > 0 or (case[0] == "fp32" and name == "grad_key_value"), facts
