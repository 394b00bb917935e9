"""The Triton kernels of softmax attention compiled for a GPU that is not at hand: what a program takes, and what its
loops over boxes are made of.

`programs` starts a process of its own, for Triton has one target and either compiles or interprets. There the calls are
those of the backend on tensors without memory; only the launch of what was compiled is left out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PRODUCTS = ("HGMMA", "HMMA", "IMMA", "QGMMA")
"""Instructions of tensor cores: those of Hopper run beside the program, the others in turn with it."""


@dataclass(frozen=True)
class Call:
    """One call of attention, forward and backward, and the GPU that it is compiled for."""

    spec: str
    grid: tuple[int, ...]
    capability: int = 90
    shared_memory: int = 227 << 10
    dtype: str = "bfloat16"
    head_dim: int = 128
    value_dim: int = 128
    heads: int = 2
    kv_heads: int = 2
    offsets: int = 0
    """Of a bias table along each axis, 0 for none."""
    dropout_p: float = 0.0
    padding: bool = False
    extra: int = 0
    """Keys that every query sees."""
    tiles: bool = False
    """Whether boxes are fetched by descriptors of their tensors."""


@dataclass(frozen=True)
class Loop:
    """An innermost loop with products of tiles, in instructions of one warp."""

    instructions: int
    products: int
    waits: int
    """For products of Hopper's tensor cores: more than one each where the compiler could not let them run ahead."""
    spills: int


@dataclass(frozen=True)
class Program:
    """A kernel as compiled: bytes of shared memory, registers and spilled bytes of a thread, places in the code that
    fetch rows while products run; and its loops, that over boxes seen whole before that over the others."""

    name: str
    queries: int
    keys: int
    warps: int
    shared: int
    registers: int
    spilled: int
    ahead: int
    tiles: int
    """Places that fetch a box with one instruction."""
    loops: tuple[Loop, ...]


def programs(call: Call) -> dict[str, Program]:
    """Compile the kernels of a call; about five seconds, no GPU needed.

    Raises:
        ImportError: the package triton is not installed. RuntimeError: it cannot compile, with its last words.
    """
    import triton  # noqa: F401

    with TemporaryDirectory() as cache:
        environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": cache}
        command = [sys.executable, "-m", __name__, json.dumps(asdict(call))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"Triton could not compile {call}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Program] = {}
    for each in map(json.loads, done.stdout.splitlines()):
        name = each["name"] if each["name"] not in found else f"{each['name']} of extra keys"
        found[name] = Program(**each | {"name": name, "loops": tuple(Loop(**loop) for loop in each["loops"])})
    return found


def loops(code: str) -> tuple[Loop, ...]:
    """The innermost loops with products, from the listing of an assembler.

    Example:
        >>> listing = '''
        ... .L_x_0:
        ...     /*0000*/ HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], RZ, !UPT ;
        ...     /*0010*/ WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
        ...     /*0020*/ @P0 BRA `(.L_x_0) ;
        ... '''
        >>> loops(listing)
        (Loop(instructions=3, products=1, waits=1, spills=0),)
    """
    names: list[str] = []
    labels: dict[str, int] = {}
    turns: list[tuple[int, int]] = []
    for line in code.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(names)
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?(\S+)(.*)", line):
            names.append(found[1])
            target = re.search(r"`\((\.L_x_\d+)\)", found[2])
            if found[1].startswith("BRA") and target and target[1] in labels:
                turns.append((labels[target[1]], len(names)))
    kinds = [name.split(".")[0] for name in names]
    inner = [
        (a, b) for a, b in turns
        if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in turns) and set(kinds[a:b]) & set(PRODUCTS)
    ]  # fmt: skip
    return tuple(_loop(Counter(kinds[a:b]), names[a:b]) for a, b in sorted(inner))


def _loop(kinds: Mapping[str, int], names: list[str]) -> Loop:
    return Loop(
        instructions=sum(kinds.values()),
        products=sum(kinds[kind] for kind in PRODUCTS),
        waits=sum(name.startswith("WARPGROUP.DEPBAR") for name in names),
        spills=kinds["LDL"] + kinds["STL"],
    )


def _compile(call: dict[str, Any]) -> None:
    """In a process of its own: one line per kernel."""
    import torch
    import triton.backends.nvidia
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    from windeye.kernels.softmax import triton as backend
    from windeye.kernels.softmax.operands import Operands
    from windeye.kernels.softmax.problem import Problem, problem_of
    from windeye.kernels.softmax.triton import sizes, tuning
    from windeye.patterns import from_spec

    class Absent:
        def get_current_target(self) -> Any:
            return GPUTarget("cuda", call["capability"], 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, _device: int) -> int:
            return 0

    def told(kernel: Any, *args: Any, run: Any = JITFunction.run, **options: Any) -> None:
        compiled = run(kernel, *args, **{**options, "warmup": True})
        sides = ["QUERIES", "KEYS"]
        queries, keys = (options[side][0] * options[side][1] * options[side][2] for side in sides)
        listing, usage = _disassembled(compiled.asm["cubin"], Path(triton.backends.nvidia.__file__).parent / "bin")
        registers, spilled = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))  # type: ignore[index]
        ahead = compiled.asm["ptx"].count("cp.async.cg.shared.global")
        tiles = compiled.asm["ptx"].count("cp.async.bulk.tensor")
        found = Program(
            kernel.__name__, queries, keys, options["num_warps"], compiled.metadata.shared, registers, spilled, ahead,
            tiles, loops(listing),
        )  # fmt: skip
        print(json.dumps(asdict(found)), flush=True)

    def shared_memory(device: torch.device) -> int:
        del device
        return int(call["shared_memory"])

    def first(problem: Problem, kernel: sizes.Kernel) -> sizes.Sizes:
        return replace(sizes.first(problem, kernel), tiles=call["tiles"])

    sizes.shared_memory = shared_memory
    setattr(tuning, "first", first)  # noqa: B010, it is not that module's to give
    driver.set_active(Absent())
    JITFunction.run = told
    dtype, grid = getattr(torch, call["dtype"]), call["grid"]

    def zeros(heads: int, dim: int, tokens: tuple[int, ...] = grid) -> torch.Tensor:
        return torch.zeros(2, *tokens, heads, dim, dtype=dtype, device="meta")

    heads, kv_heads, dim, value_dim = (call[n] for n in ("heads", "kv_heads", "head_dim", "value_dim"))
    query, key, value = zeros(heads, dim), zeros(kv_heads, dim), zeros(kv_heads, value_dim)
    bias = torch.zeros(heads, *[call["offsets"]] * len(grid), device="meta") if call["offsets"] else None
    hidden = torch.zeros(2, *grid, dtype=torch.bool, device="meta") if call["padding"] else None
    seed = torch.zeros((), dtype=torch.int64, device="meta")
    operands = Operands(query, key, value, bias, hidden, seed)
    if call["extra"]:
        extra_key, extra_value = (zeros(kv_heads, size, (call["extra"],)) for size in (dim, value_dim))
        operands = operands._replace(extra_key=extra_key, extra_value=extra_value, extra_seed=seed)
    problem = problem_of(
        from_spec(call["spec"]), query, key, value, scale=1.0, dropout_p=call["dropout_p"], has_bias=bias is not None,
        has_key_padding=hidden is not None,
    )  # fmt: skip
    out, lse = backend.forward(problem, operands)
    backend.backward(problem, operands, out, lse, out, lse)


def _disassembled(binary: bytes, tools: Path) -> tuple[str, str]:
    """The listing of a program, and what it uses."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "program.cubin"
        file.write_bytes(binary)
        commands = [(tools / "nvdisasm", "-c"), (tools / "cuobjdump", "-res-usage")]
        done = [
            subprocess.run([str(tool), option, str(file)], capture_output=True, text=True, check=True).stdout
            for tool, option in commands
        ]
    return done[0], done[1]


if __name__ == "__main__":
    _compile(json.loads(sys.argv[1]))
