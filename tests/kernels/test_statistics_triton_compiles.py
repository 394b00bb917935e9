"""The Triton kernels of statistics compile for GPUs, on a machine without one, and fit into what these have.

The calls are those of the route; only the launch of what was compiled is left out.
"""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")
CODE = """
import sys
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction
from windeye.kernels.statistics import passes, statistic
from windeye.kernels.statistics.relation import Runs, Tabled
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.triton.launch import Work
from windeye.patterns import from_spec

capability, name, head_dim, top, spans, rest, spec, *grid = sys.argv[1:]


class Absent:
    def get_current_target(self):
        return GPUTarget("cuda", int(capability), 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, _device):
        return 0


def compile_only(kernel, *args, run=JITFunction.run, **options):
    compiled = run(kernel, *args, **{**options, "warmup": True})
    print(kernel.__name__, compiled.metadata.shared)


driver.set_active(Absent())
JITFunction.run = compile_only
dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}[name]
grid, rest = tuple(map(int, grid)), int(rest)
bound = from_spec(spec).bind(grid)
# Runs of keys are looked at on the way, tables are not.
device = torch.device("meta" if grid[1:] else "cpu")
torch.set_default_device(device)
query = torch.zeros(2, bound.tokens, 4, int(head_dim), dtype=dtype)
key = query[:, :, :2]
hidden = torch.zeros(2, bound.tokens, dtype=torch.bool)
relation = Tabled(bound, device, hidden if rest else None)
if not grid[1:]:
    relation = Runs(relation.start, relation.stop, relation.keys, relation.offset)
wide = torch.float64 if dtype == torch.float64 else torch.float32
changes = (3.0, torch.zeros(4), torch.zeros(1, 4, 1, bound.tokens), hidden) if rest else ()
scores = Scores(query, key, relation, 0.1, *changes)
ranked = statistic.TopKeys(int(top)) if int(top) else statistic.MaxWeight()
asked = [
    statistic.RowMass(), statistic.Entropy(), statistic.Participation(), statistic.MeanDistance(), ranked,
    statistic.WindowedDistance(10), statistic.DistanceMass(0, 0),
    statistic.SpanMass(torch.zeros(1, int(spans), bound.tokens, dtype=torch.bool)),
]
work = Work(scores, passes.Asked(asked))
rows = work.rows()
work.columns(rows.lse, (10, 100))
work.backward(rows.lse, [rows.lse] * 4 + [rows.features, rows.tables])
"""
SHARED = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10}
"""Bytes a block of threads may use: A100, L4 and RTX 40, H100."""


@pytest.mark.parametrize(
    ("capability", "case"),
    [
        (90, ("bf16", 128, 0, 3, 1, "Neighborhood(kernel_size=(18, 24, 24), stride=(16, 8, 8))", 18, 24, 24)),
        (80, ("fp32", 64, 8, 70, 0, "Causal()", 1000)),
        (89, ("fp64", 40, 0, 1, 1, "Neighborhood(kernel_size=13, dilation=2)", 64, 64)),
    ],
    ids=str,
)
def test_compiles_and_fits(capability, case, tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", CODE, str(capability), *map(str, case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    used = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    assert set(used) == {"row_sums", "column_sums", "grad_query", "grad_key"}
    assert max(used.values()) <= SHARED[capability], used
