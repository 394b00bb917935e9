"""Lightning Attention-2: blocks make the speed of a token independent of the length, at the same result."""

from __future__ import annotations

from functools import partial
from itertools import chain

from windeye.papers.arms import each_arm
from windeye.papers.experiment import Budget, Run, one_thread
from windeye.papers.lightning_attention_2 import judgement, pictures
from windeye.papers.lightning_attention_2.judgement import FALLS, FLAT, GROWS, NOISE, SAME, STREAMED
from windeye.papers.lightning_attention_2.memory import measure
from windeye.papers.lightning_attention_2.plan import LENGTHS, LONGEST, PARALLEL, PLANS, SDPA, STREAMS
from windeye.papers.lightning_attention_2.speed import HEAD_DIM, HEADS, speeds
from windeye.papers.lightning_attention_2.training import FORMS, train
from windeye.report import Evidence, Pieces

SEEDS: dict[Budget, tuple[int, ...]] = {"smoke": (0,), "default": (0, 1, 2), "full": tuple(range(5))}

CLAIM = (
    "Computed block by block, decayed linear attention takes as long per token at any length, in memory that grows "
    "with the tokens at most and not with their square, while its masked product over all pairs and softmax attention "
    "slow down with the length; the result is the same: a model trains along the same losses."
)
RULE = (
    f"Shown if all of: losses of a model trained in blocks and with the parallel form differ by at most {SAME:g} nats "
    "at every step in every seed, and by more where the rates are 5% faster, in every seed; tokens per second of the "
    f"kernel, forward and backward, vary by less than {FLAT}x from {min(LENGTHS)} to {max(LENGTHS)} tokens (mean over "
    f"repetitions); the time of the parallel form and of causal SDPA over the kernel's grows by at least {FALLS}x per "
    "doubling from the crossover on (means over repetitions), the shortest length from which on a form is slower than "
    f"the kernel; outputs of a stream in pieces with carried state lie within {STREAMED:g} of one pass in float64, "
    f"relative to the largest; a stream of {max(STREAMS)} tokens takes no more memory than one of {min(STREAMS)}; for "
    "four times the tokens memory of a pass beyond inputs and outputs grows at most fourfold for the kernel (both "
    f"within {NOISE:.0f} MiB) and at least {GROWS:.0f}-fold for the parallel form. Opposite if in every repetition "
    "causal SDPA is nowhere slower than the kernel. Blocks in torch and where the crossovers lie are reported and "
    "decide nothing."
)
LIMITS = (
    f"One CPU thread, float32, batch 1, {HEADS} heads of {HEAD_DIM}: nothing about GPUs or half types. The machine was "
    "not reserved: candidates take turns and ratios are medians over rounds, but times are not those of a quiet "
    f"machine. The parallel form ends at {LONGEST[PARALLEL]} tokens, where its matrices of all pairs take gigabytes, "
    f"causal SDPA at {LONGEST[SDPA]}, where a pass takes many seconds. The curves are of a model of two layers of "
    "width 64 on half a megabyte of English. Before the rule was written it was known from `windeye bench recurrence` "
    "that the kernel's speed is about constant and that it beats SDPA from 512 tokens on, and from one training with a "
    "seed that is not reported that the curves agree to the last digits, and that rates 1% faster move them by 0.0015. "
    "A first default run, with five times as much work on the machine as it has cores, missed two gates: memory of "
    "streams was read once, in pieces of 16,384 tokens, where readings vary by two tensors of 16 MiB, and a limit of "
    "time had cut the rounds of the constant speed to three. Since then pieces have 1,024 tokens, readings are the "
    "middle of three, and all rounds are done; the rule is as it was."
)


def experiment(run: Run) -> Evidence:
    """Train one model in both forms, time the forms over lengths, measure memory, and judge by `RULE`.

    Raises:
        ImportError: the training loop's libraries are missing; names the extra.
    """
    plan = PLANS[run.budget]
    pieces = Pieces(run.recorder, run.progress, len(run.seeds) * (len(FORMS) + 4) + 1)
    trained = each_arm(
        pieces, FORMS, run.seeds, f"{plan.steps} steps", lambda arm, seed, tell: train(arm, plan, seed, tell)
    )
    with one_thread():
        repetitions = [pieces.do(f"speed, repetition {seed}", partial(speeds, plan), weight=4) for seed in run.seeds]
        measured = pieces.do("memory", lambda _tell: measure(plan))
    rows = (
        *judgement.equal_rows(trained),
        *judgement.speed_rows(repetitions),
        *judgement.memory_rows(measured),
    )
    return Evidence(
        slug="lightning-attention-2",
        claim=CLAIM,
        rule=RULE,
        verdict=judgement.verdict(rows),
        checks=judgement.checks(rows),
        rows=rows,
        budget=run.budget,
        seeds=run.seeds,
        seconds=sum(part["seconds"] for part in (*chain(*trained.values()), *repetitions, measured)),
        command=run.command,
        limits=LIMITS,
        pictures=(pictures.speeds(rows), pictures.curves(trained, run.seeds[0])),
    )
