"""Group-relative policy optimisation of the half-trained model, with one rule of credit or another."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from windeye.data.sequences import derived_seed
from windeye.data.tasks.plan_then_fill import Role
from windeye.models import DecoderLM, generate
from windeye.papers.preplan_anchor.plan import PolicyPlan, ToyPlan
from windeye.papers.preplan_anchor.toy import Weights, untrained
from windeye.report import Tell
from windeye.train.credit import coupled_rhythm, credited, global_anchor, rhythm

Rule = Callable[[Tensor, Tensor, Tensor, torch.Generator], Tensor]
"""Factors from WAAD, FAI, the response, and a generator for what is random; each [batch, tokens]."""

UNIFORM, RANDOM, COUPLED, BOTTOM = "uniform", "random tokens", "coupled rhythm", "coupled rhythm, lowest anchors"

RULES: dict[str, Rule] = {
    UNIFORM: lambda waad, _fai, _response, _draws: torch.ones_like(waad),
    RANDOM: lambda waad, _fai, response, generator: global_anchor(
        torch.rand(waad.shape, generator=generator), response
    ),
    COUPLED: lambda waad, fai, response, _draws: coupled_rhythm(waad, fai, response),
    BOTTOM: lambda waad, fai, response, _draws: coupled_rhythm(waad, -fai, response),
}


class Course(TypedDict):
    """Mean reward of each step's samples, drawn before the step, and the time of the whole and of reading signals."""

    rewards: list[float]
    reading: float
    seconds: float


def optimise(weights: Weights, rule: str, toy: ToyPlan, plan: PolicyPlan, seed: int, tell: Tell) -> Course:
    """Train a policy from given weights; arms of a seed see the same prompts and draw with the same numbers."""
    began = time.process_time()
    model = untrained(toy, seed)
    model.load_state_dict(weights)
    model.eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=0.0)
    rewards = []
    reading = 0.0
    for step in range(plan.steps):
        prompt, key, value = prompts(toy, plan, seed, step)
        written = generate(model, prompt, plan.written * chunk(toy), temperature=1.0, seed=derived_seed(seed, step))
        reward = rewarded(written, key, value, toy)
        rewards.append(reward.mean().item())
        ids = torch.cat((prompt, written), dim=1)
        response = (torch.arange(ids.shape[1]) >= prompt.shape[1]).expand(ids.shape)
        before = time.process_time()
        read = rhythm(model, ids, response, window=toy.window, low=plan.low, high=plan.high)
        reading += time.process_time() - before
        draws = torch.Generator().manual_seed(derived_seed("random tokens", seed, step))
        gamma = RULES[rule](read.waad, read.fai, response, draws)
        update(model, optimiser, ids, credited(relative(reward, plan.samples), gamma, response), response, plan)
        tell((step + 1) / plan.steps)
    return Course(rewards=rewards, reading=reading, seconds=time.process_time() - began)


def prompts(toy: ToyPlan, plan: PolicyPlan, seed: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts, each as often as it is answered, with the keys that they define and their values."""
    text = toy.task.marked(plan.prompts, seed=derived_seed("prompts", seed, step), definitions_first=True)
    length = 3 * toy.task.definitions + plan.shown * chunk(toy)
    key, value = (text.tokens[text.roles == role].view(plan.prompts, -1) for role in (Role.NAME, Role.VALUE))
    prompt, key, value = (t.repeat_interleave(plan.samples, dim=0) for t in (text.tokens[:, :length], key, value))
    return prompt, key, value


def chunk(toy: ToyPlan) -> int:
    """Tokens of a chunk."""
    return 2 + toy.task.numbers


def rewarded(written: Tensor, key: Tensor, value: Tensor, toy: ToyPlan) -> Tensor:
    """Share of the chunks of each response that are right, from the first to the last token."""
    chunks = written.view(len(written), -1, chunk(toy))
    right = [toy.task.right(chunks[:, place], key, value) for place in range(chunks.shape[1])]
    return torch.stack(right, dim=1).float().mean(dim=1)


def relative(reward: Tensor, samples: int) -> Tensor:
    """Rewards less the mean of their group, over its deviation; 0 where a group is all alike.

    Example:
        >>> relative(torch.tensor([0.0, 1.0, 1.0, 1.0]), samples=2).tolist()
        [-0.7071..., 0.7071..., 0.0, 0.0]
    """
    groups = reward.view(-1, samples)
    return ((groups - groups.mean(dim=1, keepdim=True)) / (groups.std(dim=1, keepdim=True) + 1e-6)).flatten()


def update(
    model: DecoderLM,
    optimiser: torch.optim.Optimizer,
    ids: Tensor,
    advantages: Tensor,
    response: Tensor,
    plan: PolicyPlan,
) -> None:
    """The clipped objective, averaged over each response's tokens, in a few steps of the optimiser."""
    with torch.no_grad():
        old = log_likelihood(model, ids)
    for rows in torch.arange(len(ids)).chunk(plan.minibatches):
        ratio = (log_likelihood(model, ids[rows]) - old[rows]).exp()
        written, credit = response[rows, 1:], advantages[rows, 1:]
        gain = torch.minimum(ratio * credit, ratio.clamp(1 - plan.clip, 1 + plan.clip) * credit)
        loss = -((gain * written).sum(dim=1) / written.sum(dim=1)).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()


def log_likelihood(model: DecoderLM, ids: Tensor) -> Tensor:
    """Log-probability of each token after the first."""
    logits = model(ids)[:, :-1]
    return -F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)
