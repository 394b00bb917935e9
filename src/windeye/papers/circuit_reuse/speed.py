"""All heads to the logits: the closed form, and two forward passes per head."""

from __future__ import annotations

import time
from typing import Any, TypedDict

import torch

from windeye.data.tasks import ColoredObjects, ContrastBatch
from windeye.papers.circuit_reuse.plan import Speed
from windeye.sites.paths import path_patching


class Timing(TypedDict):
    """Seconds of the processor; those of the reference are of one head, the mean over the heads that were timed.

    ``off`` is the largest difference of the two in the logit differences of these heads.
    """

    heads: int
    forward: float
    free: float
    frozen: float
    reference: float
    off: float


def measure(plan: Speed) -> Timing:
    """Time both on a GPT-2 with random weights.

    Raises:
        ImportError: without transformers; names the extra.
    """
    model, prompts = _model(plan), _prompts(plan)
    heads = plan.layers * plan.heads
    senders = [divmod(place, plan.heads) for place in range(0, heads, -(-heads // plan.timed))]
    with torch.no_grad():
        model(prompts.clean[:4])
        began = time.process_time()
        model.transformer(input_ids=prompts.clean, use_cache=False)
        forward = time.process_time() - began
    seconds, found = {}, {}
    for mlps in ("free", "frozen"):
        began = time.process_time()
        found[mlps] = path_patching(model, prompts, mlps=mlps)
        seconds[mlps] = time.process_time() - began
    began = time.process_time()
    reference = path_patching(model, prompts, mlps="free", senders=senders, route="two-pass", chunk=1)
    # The two runs that are compared are made by both.
    taken = time.process_time() - began - 2 * forward
    off = max((reference.patched[s] - found["free"].patched[s]).abs().max().item() for s in senders)
    return Timing(
        heads=heads,
        forward=forward,
        free=seconds["free"],
        frozen=seconds["frozen"],
        reference=taken / len(senders),
        off=off,
    )


def _model(plan: Speed) -> Any:
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError as error:
        raise ImportError("the speed part needs transformers: pip install 'windeye[hf]'") from error
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=plan.vocab_size, n_positions=256, n_embd=plan.dim, n_layer=plan.layers, n_head=plan.heads,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def _prompts(plan: Speed) -> ContrastBatch:
    """Colored Objects by words, of which there are few; every prompt has 62 of them."""
    words: dict[str, int] = {}

    def ids(text: str) -> list[int]:
        pieces = text.replace("\n", " \n ").replace(",", " ,").replace(".", " .").replace("?", " ?").replace(":", " :")
        return [words.setdefault(word, len(words)) for word in pieces.split(" ") if word]

    drawn = ColoredObjects().sample(plan.prompts, seed=0)
    clean, corrupt = (torch.tensor([ids(getattr(p, side)) for p in drawn]) for side in ("text", "twin"))
    answers = torch.tensor([ids(p.answer.strip()) + ids(p.twin_answer.strip()) for p in drawn])
    return ContrastBatch(clean, corrupt, answers)
