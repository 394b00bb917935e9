"""Circuit reuse: does path patching find a circuit that is known, and which heads do two tasks share?"""

from __future__ import annotations

from functools import partial

from windeye.data import AssetUnavailable
from windeye.papers.circuit_reuse import judgement, pictures
from windeye.papers.circuit_reuse.judgement import AGREE, COUNTED, FALLS, FAR, LARGE, LEARNED
from windeye.papers.circuit_reuse.plan import PLANS, Real
from windeye.papers.circuit_reuse.real import Reading, read
from windeye.papers.circuit_reuse.speed import Timing, measure
from windeye.papers.circuit_reuse.toy import Outcome, learn
from windeye.papers.experiment import Budget, Run, one_thread
from windeye.report import Evidence, Pieces, Tell

SEEDS: dict[Budget, tuple[int, ...]] = {"smoke": (0,), "default": (0, 1, 2), "full": tuple(range(8))}

CLAIM = (
    "Path patching recovers a circuit that is known: in a small model that looks up keys, the head that attends to "
    "the previous token is what tells the answering heads where to look, by a route that runs through an MLP; and "
    "what an edit of a head's attention does follows from what the head writes."
)
RULE = (
    "A decoder of four layers learns to name the value behind a key that comes again; the corrupted prompt has two "
    "keys of its list swapped. Receivers are the keys of all heads of the layer that carries most of the answer; "
    "senders all heads below. Effects are shares of the flip of the logit difference, means over seeds. Shown if all "
    f"of: every seed looks up at least {LEARNED:.0%}; with every seed the head below that attends most from values to "
    f"the token before has the largest effect; its mean effect is at least {LARGE} and at least {FAR:g} times the "
    f"mean of the largest among the others; with MLPs frozen at most {FALLS} of it are left, and less than all with "
    "every seed; and in the half-trained model, where the last token of one head after the other is made to attend "
    f"to the wrong values, at least {AGREE:.0%} of the heads whose direct effect is at least {COUNTED} of the largest "
    "move the logit difference the way of their direct effect. Opposite if all seeds have learned and in none that "
    "head ranks first. What a pretrained model does on both tasks, which heads it shares, its repair, and the speed "
    "are reported and decide nothing."
)
LIMITS = (
    "A toy: six keys, 23 values, 13 tokens, four layers of four heads of width 64, trained until it looks up: where "
    "the weights it began with led elsewhere, training began again from others, up to four times. Steps, rate, "
    "initial spread and batch were chosen on seeds that are not reported. Three of these had learned before the rule "
    "was written, with effects of .85, .91 and .92 against .08, .04 and .002 for the next head, and .35, .36 and .75 "
    "with MLPs frozen; in a fourth, which had not, the rule would have failed. Which layer receives is read from "
    "activation patching. The half-trained model is a copy from the first evaluation at which it knew at least three "
    "tenths of the answers; it has no inhibition heads, and its repair is no test of the paper's. The pretrained "
    "model is not the paper's: 135 million parameters, weights of four bits, grouped heads, tuned for chat, prompts "
    "as plain text without its template; words that are not one of its tokens are left out. The heads that are "
    "edited in Colored Objects are those that IOI names by rank alone; nobody has looked at what they do. Effects on "
    "queries are of the first 12 of 60 prompts of each task. A mixture of tasks on which one small model is trained "
    "was not tried: trials reported by others stayed at chance in Colored Objects for thousands of steps. Speed is of "
    "the processor on one thread, of a GPT-2 with random weights of 12 layers of 12 heads and width 192; two passes "
    "per head are timed for 6 heads spread over the layers and multiplied."
)


def experiment(run: Run) -> Evidence:
    """Train the small models, read the pretrained one if it is at hand, and judge by `RULE`.

    Raises:
        ImportError: without Accelerate, torchmetrics or transformers; names the extra.
    """
    plan = PLANS[run.budget]
    pieces = Pieces(run.recorder, run.progress, len(run.seeds) + (plan.speed is not None) + 3 * (plan.real is not None))
    with one_thread():
        found: list[Outcome] = [
            pieces.do(f"small model, seed {seed}", partial(learn, plan.toy, seed, run.device)) for seed in run.seeds
        ]
        timing: Timing | None = (
            None if (speed := plan.speed) is None else pieces.do("speed", lambda _tell: measure(speed))
        )
        reading: Reading | None = None
        if plan.real is not None:
            reading = pieces.do(plan.real.model, partial(_at_hand, plan.real), weight=3)
    rows = judgement.rows_of(found, reading, timing)
    drawn = (pictures.circuit(found), *([] if reading is None else [pictures.reuse(reading)]))
    return Evidence(
        slug="circuit-reuse",
        claim=CLAIM,
        rule=RULE,
        verdict=judgement.verdict(rows),
        checks=judgement.checks(rows),
        rows=rows,
        budget=run.budget,
        seeds=run.seeds,
        seconds=sum(o["seconds"] for o in found) + (0.0 if reading is None else reading["seconds"]),
        command=run.command,
        limits=LIMITS,
        pictures=drawn,
    )


def _at_hand(plan: Real, tell: Tell) -> Reading | None:
    """The pretrained model's part, or nothing where there is no such model: it decides nothing."""
    try:
        return read(plan, tell)
    except AssetUnavailable:
        return None
