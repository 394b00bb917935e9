"""A small decoder that reads neighbourhoods through a horizon and names the class of the centre."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from windeye.data.graphs import TreePrompts
from windeye.data.sequences import derived_seed
from windeye.models import AttentionSpec, DecoderConfig, DecoderLM
from windeye.nn import CausalAttention, NodeTokens
from windeye.papers.llm_graphs.examples import Task, unpacked
from windeye.papers.llm_graphs.plan import FULL, RANDOM, RANDOM_AS, Plan
from windeye.patterns import Allowed, Causal, Pattern, tree_horizon


def random_horizon(prompts: TreePrompts, hops: int, generator: torch.Generator) -> Allowed:
    """As many earlier nodes for every node as `windeye.patterns.tree_horizon` shows, chosen at random."""
    told = tree_horizon(prompts.tree, prompts.parents, hops).mask[:, 0]
    n = told.shape[1]
    before = torch.ones(n, n, dtype=torch.bool, device=told.device).tril(-1)
    earlier = prompts.tree[:, :, None] & prompts.tree[:, None, :] & before
    count = (told & earlier).sum(dim=-1, keepdim=True)
    lot = torch.rand(told.shape, generator=generator).to(told.device).masked_fill(~earlier, 2.0)
    chosen = lot.argsort(dim=-1).argsort(dim=-1) < count
    return Allowed(torch.where(earlier, chosen, told)[:, None])


class Reader(nn.Module):
    """A decoder, and the horizon that it reads with: of `plan.HORIZONS`, or `plan.RANDOM`."""

    def __init__(self, model: DecoderLM, horizon: int, seed: int = 0) -> None:
        super().__init__()
        self.model = model
        self.horizon = horizon
        self.chance = torch.Generator().manual_seed(derived_seed("random pairs", seed))

    @classmethod
    def of(cls, task: Task, plan: Plan, horizon: int, seed: int) -> Reader:
        """A fresh reader; the initial weights are those of the seed, whatever the horizon."""
        specs = (AttentionSpec(plan.heads),) * plan.layers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed("weights", seed))
            model = DecoderLM(DecoderConfig(len(task.words), plan.dim, specs, glu_dim=2 * plan.dim, init_std=0.05))
            tokens = NodeTokens(len(task.words), plan.dim, task.words.texts(task.graph))
        tokens.load_state_dict(model.embedding.state_dict())
        model.embedding = tokens
        return cls(model, horizon, seed)

    def pattern(self, prompts: TreePrompts) -> Pattern:
        """Who sees whom in these prompts."""
        if self.horizon == FULL:
            return Causal()
        if self.horizon == RANDOM:
            return random_horizon(prompts, RANDOM_AS, self.chance)
        return tree_horizon(prompts.tree, prompts.parents, self.horizon)

    def forward(self, rows: Int64[Tensor, "batch 3 n"]) -> Float[Tensor, "batch words"]:
        """Logits of the answer."""
        prompts = unpacked(rows)
        with through(self.model, self.pattern(prompts)):
            hidden, _ = self.model.hidden(prompts.ids)
        last = (prompts.lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
        return self.model.logits(hidden.gather(1, last)[:, 0])

    @contextmanager
    def reading_with(self, horizon: int) -> Iterator[None]:
        """Another horizon for as long as this is open."""
        own, self.horizon = self.horizon, horizon
        try:
            yield
        finally:
            self.horizon = own


@contextmanager
def through(model: nn.Module, pattern: Pattern) -> Iterator[None]:
    """Every causal attention of a model sees what a pattern shows for as long as this is open."""
    layers = [layer for layer in model.modules() if isinstance(layer, CausalAttention)]
    own = [layer.pattern for layer in layers]
    for layer in layers:
        layer.pattern = pattern
    try:
        yield
    finally:
        for layer, before in zip(layers, own, strict=True):
            layer.pattern = before
