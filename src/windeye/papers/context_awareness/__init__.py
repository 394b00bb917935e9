"""Loss of context-awareness: what tuning takes away, a marker that keeps it, a score that finds it, steering."""

from __future__ import annotations

from functools import partial

from windeye.papers.context_awareness import judgement, pictures
from windeye.papers.context_awareness.judgement import (
    FALLS,
    GAIN,
    INTACT,
    LEARNED,
    LOST,
    RISING,
    SAME,
    SEPARATES,
    STEERED,
)
from windeye.papers.context_awareness.needle import Answers, ask
from windeye.papers.context_awareness.plan import LAYER, PLANS
from windeye.papers.context_awareness.tuning import Outcome, train
from windeye.papers.experiment import Budget, Run, one_thread
from windeye.report import Evidence, Pieces

SEEDS: dict[Budget, tuple[int, ...]] = {"smoke": (0,), "default": (0, 1, 2), "full": (0, 1, 2, 3, 4)}

CLAIM = (
    "Tuning on answers that mostly ignore their prompt makes a model stop reading it. A marker on the prompts whose "
    "answer depends on them keeps the ability, to be called by setting the marker, and costs no memorised answer; the "
    "attention that an answer pays to the prompt tells which prompts these are, and steering attention back recovers a "
    "part of what was lost."
)
RULE = (
    "Recall is the share of symbols of greedy answers that are the passage's, on dialogues that no training saw; means "
    f"over seeds. Shown if all of: before tuning the model reads at least {LEARNED:g} %; after vanilla tuning at most "
    f"{LOST:g} %; with the marker at test time the marked arm reads at least {GAIN:g} points more than vanilla, and "
    "than an arm with as many markers at random; those random markers add at most "
    f"{SAME:g} points to vanilla; memorised answers, without marker, are at least {INTACT:g} % right in every arm; "
    f"steered to the passage with alpha of {', '.join(f'{alpha:g}' for alpha in RISING)}, vanilla loses at no step "
    f"more than {FALLS:g} points, and the best alpha of the sweep reads at least {STEERED:g} points more than vanilla "
    "unsteered, and than vanilla steered to the rest of the prompt with any alpha; and before tuning the score of "
    f"layer {LAYER}, mean over heads, with the passage as span, tells answers from the passage from memorised ones "
    f"with an area under the curve of at least {SEPARATES:g} in every seed. Opposite if the random arm reads more than "
    "the marked one in every seed. The maximum over heads, the arm that is marked by score, spans of the whole user "
    "turn and all of SmolLM2 are reported and decide nothing."
)
LIMITS = (
    "A toy: dialogues of 18 tokens, 48 entities, a decoder of four layers and width 64 with rotary positions, one "
    "task. Which dialogues depend on their passage is known here; the marked arm is told, and the arm that is marked "
    "by score is told how many they are. The paper's threshold of 0.6 does not carry over: in a trial it marked 61 % "
    "of all dialogues, 24 % of them rightly, which is why the arm takes a share instead. Steering is to the passage; "
    "the paper's span, all of the user's turn, is reported. Towards small alpha too little weight is left elsewhere "
    "and both kinds of answers fall, so the best alpha is in the middle of the sweep, and it costs memorised answers."
    " Sizes, steps and the rule were fixed after trials with two seeds that are not reported; in them vanilla read 6 "
    "% and 8 %, the marked arm 100 % with its marker, and steering towards the rest of the prompt added up to 13 "
    "points, for which the rule compares with it. SmolLM2 has 135M parameters and one context per length and depth: "
    "its numbers say that the tools work on a real chat model and template, not what templates do to models in "
    "general. Its context is read without steering; the last token of the prompt and the answer are steered. It was "
    "first asked for answers of 22 tokens, which cut off those that repeat the needle from its first word; this was "
    "seen in the rows, and SmolLM2 alone was asked again, for 40. Seconds are of one thread on a machine with other "
    "work."
)


def experiment(run: Run) -> Evidence:
    """Train and tune a small model with every seed, ask a real one for needles, and judge by `RULE`.

    Raises:
        ImportError: without Accelerate, or, beyond the smoke budget, without transformers; names the extra.
    """
    plan = PLANS[run.budget]
    pieces = Pieces(run.recorder, run.progress, len(run.seeds) + (2 if plan.needles else 0))
    answers: Answers | None = None
    with one_thread():
        outcomes: list[Outcome] = [
            pieces.do(f"dialogues, seed {seed}", partial(train, plan.toy, seed, run.device)) for seed in run.seeds
        ]
        if plan.needles is not None:
            answers = pieces.do("needles", partial(ask, plan.needles), 2)
    rows = judgement.rows_of(outcomes, answers)
    return Evidence(
        slug="context-awareness",
        claim=CLAIM,
        rule=RULE,
        verdict=judgement.verdict(rows),
        checks=judgement.checks(rows),
        rows=rows,
        budget=run.budget,
        seeds=run.seeds,
        seconds=sum(outcome["seconds"] for outcome in outcomes) + (answers["seconds"] if answers else 0.0),
        command=run.command,
        limits=LIMITS,
        pictures=(
            pictures.reading(rows),
            pictures.steering(rows),
            *([pictures.needles(rows)] if answers else []),
        ),
    )
