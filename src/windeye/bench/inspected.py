"""One way of taking the same statistics of every head of a model, in a process of its own: run as a file, so that other
libraries may live in another environment.

    python -P inspected.py WAY FOLDER TOKENS THREADS

prints seconds of the clock and of the processor, the peak of memory beyond the loaded model and of the whole process,
and the statistics, as JSON.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STATS = ("entropy", "mean_distance", "waad", "fai", "sink", "previous", "self", "max_weight", "received")
Way = Callable[[str, int], Callable[[Tensor], Any]]
"""From a model's folder and a number of tokens to a function of ids, which gives [stats, layers, heads] or None."""


def of_map(weights: Tensor) -> Tensor:
    """The statistics of one layer's map [heads, n, n], means over the text: [stats, heads]."""
    n = weights.shape[-1]
    back = torch.arange(n)[:, None] - torch.arange(n)
    within = (back >= 10) & (back <= 100)
    return torch.stack(
        [
            -torch.xlogy(weights, weights).sum(-1).mean(-1),
            (weights * back).sum(-1).mean(-1),
            (weights * back.clamp(max=10)).sum(-1).mean(-1),
            ((weights * within).sum(-2) / within.sum(0).clamp(min=1)).mean(-1),
            weights[..., 0].mean(-1),
            (weights * (back == 1)).sum(-1).mean(-1),
            weights.diagonal(dim1=-2, dim2=-1).mean(-1),
            weights.amax(-1).mean(-1),
            (weights.sum(-2) / (n - torch.arange(n))).mean(-1),
        ]
    )


def _model(folder: str, implementation: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=implementation, dtype=torch.float32).eval()


def plain(folder: str, _: int) -> Callable[[Tensor], None]:
    """The model's own pass, nothing watched."""
    model = _model(folder, "sdpa")
    return lambda ids: model(ids, use_cache=False, logits_to_keep=1) and None


def windeye(folder: str, _: int) -> Callable[[Tensor], Tensor]:
    """Statistics beside the pass."""
    from windeye.hf.attach import attach
    from windeye.inspection.words import statistics_of
    from windeye.sites import watch

    model, stats = _model(folder, "sdpa"), statistics_of(STATS)
    attach(model)

    def run(ids: Tensor) -> Tensor:
        with watch(model, stats) as seen:
            model(ids, use_cache=False, logits_to_keep=1)
        return torch.stack([seen[name][:, 0].mean(dim=1) for name in STATS])

    return run


def steered(folder: str, n: int) -> Callable[[Tensor], None]:
    """The pass with the last query steered away from all but the second quarter of the text."""
    from windeye.hf.attach import attach
    from windeye.sites import KeyBias, Keys, Where, steer

    model = _model(folder, "sdpa")
    attach(model)
    edit = KeyBias(-3.0, Keys.span(n // 4, n // 2, outside=True), where=Where(rows="last"))

    def run(ids: Tensor) -> None:
        with steer(model, [edit]):
            model(ids, use_cache=False, logits_to_keep=1)

    return run


def maps(folder: str, _: int) -> Callable[[Tensor], Tensor]:
    """``output_attentions=True``: all maps, then the statistics."""
    model = _model(folder, "eager")

    def run(ids: Tensor) -> Tensor:
        found = model(ids, use_cache=False, logits_to_keep=1, output_attentions=True).attentions
        return torch.stack([of_map(weights[0]) for weights in found], dim=1)

    return run


def one_map(folder: str, _: int) -> Callable[[Tensor], Tensor]:
    """Eager attention with a hook that takes the statistics of each layer's map and lets the map go."""
    model = _model(folder, "eager")
    found: list[Tensor] = []
    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(lambda _module, _args, out: found.append(of_map(out[1][0])))

    def run(ids: Tensor) -> Tensor:
        found.clear()
        model(ids, use_cache=False, logits_to_keep=1)
        return torch.stack(found, dim=1)

    return run


def transformer_lens(folder: str, _: int) -> Callable[[Tensor], Tensor]:
    """Hooks at the pattern of every layer, in the way of the library."""
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_transformers(folder, dtype=torch.float32)

    def run(ids: Tensor) -> Tensor:
        found: list[Tensor] = []

        def take(pattern: Tensor, hook: Any) -> None:
            del hook
            found.append(of_map(pattern[0]))

        model.run_with_hooks(ids, fwd_hooks=[(lambda name: name.endswith("attn.hook_pattern"), take)])
        return torch.stack(found, dim=1)

    return run


def nnsight_trace(folder: str, _: int) -> Callable[[Tensor], Tensor]:
    """A trace that takes the statistics of each layer's map, in the way of the library."""
    import nnsight

    model = nnsight.NNsight(_model(folder, "eager"))

    def run(ids: Tensor) -> Tensor:
        with model.trace(ids, use_cache=False, logits_to_keep=1):
            found: Any = nnsight.save([])
            for layer in model.model.layers:
                found.append(of_map(layer.self_attn.output[1][0]))
        return torch.stack(found, dim=1)

    return run


WAYS: dict[str, Way] = {
    way.__name__: way for way in (plain, windeye, steered, maps, one_map, transformer_lens, nnsight_trace)
}


@torch.no_grad()
def main(way: str, folder: str, tokens: int, threads: int) -> dict[str, Any]:
    """Load, warm up on a few tokens, measure once."""
    torch.set_num_threads(threads)
    run = WAYS[way](folder, tokens)
    text = torch.randint(1000, 40000, (1, tokens), generator=torch.Generator().manual_seed(0))
    run(text[:, :32])
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    began, worked = time.perf_counter(), time.process_time()
    found = run(text)
    seconds, processor = time.perf_counter() - began, time.process_time() - worked
    told = None if found is None else [[round(float(x), 6) for x in row.flatten()] for row in found]
    peak = _status("VmHWM")
    return {"seconds": seconds, "processor": processor, "peak": peak - before, "whole": peak, "statistics": told}


def _status(field: str) -> int:
    found = re.search(field + r":\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
