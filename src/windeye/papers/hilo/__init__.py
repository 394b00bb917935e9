"""HiLo: heads inside small windows beside heads that see means of windows, against what each does alone."""

from __future__ import annotations

from windeye.papers.arms import each_arm
from windeye.papers.experiment import Budget, Run, one_thread
from windeye.papers.hilo import judgement, pictures, training
from windeye.papers.hilo.judgement import NEAR
from windeye.papers.hilo.plan import ARMS, PLANS, SPLIT
from windeye.report import Evidence, Pieces

SEEDS: dict[Budget, tuple[int, ...]] = {"smoke": (0,), "default": (1, 2, 3), "full": (1, 2, 3, 4, 5)}

CLAIM = (
    "Heads split by frequency are as accurate as full attention and faster than it, than windows and than pooled keys: "
    "some attend inside small windows and carry fine detail, the others attend to means of windows and do not."
)
RULE = (
    "Accuracy on tokens that a digit covers, in held-out scenes of held-out digits, means over seeds; all arms have "
    "the same skeleton with convolving feed-forward parts, scenes and steps. Shown if all of: HiLo with "
    f"alpha {SPLIT[0]:g} and {SPLIT[1]:g} lie at most {NEAR:g} point below full attention, and not below windows nor "
    "spatial reduction; of all alphas 0 is the least accurate; the faster of these two runs more scenes per second "
    "than full attention, spatial reduction and windows; in every layer of both the outputs of high heads have a "
    "larger share of their energy above half of Nyquist than those of low heads, on photographs, and by more on "
    "average than halves of the heads of full attention differ. Opposite if with every seed both are less accurate "
    "than windows and spatial reduction. The arm without attention and alpha 1 are reported and decide nothing else."
)
LIMITS = (
    f"A toy: 12x12 tokens, {PLANS['default'].blocks} blocks of width {PLANS['default'].dim}, "
    f"{PLANS['default'].steps} steps on scenes of three digits of 8x8 pixels, enlarged; a digit is at most 6 tokens "
    "wide, which blocks of convolutions reach without attention. Rate, start and a larger size were chosen from "
    "single runs of full attention with a seed that is not reported, until it named most tokens; steps and size were "
    "then cut to the time there was, unseen. Nothing was tuned for HiLo. A first plan, larger scenes and weights "
    "started as wide networks start theirs, was stopped after four arms of one seed, because full "
    "attention then named 34% of the tokens, alpha 0 39%. Speed is of whole networks on images of 64x64 "
    "pixels in this library's CPU kernels on one thread, on a machine that other work may keep busy: arms take turns "
    "and ratios are medians. The published harness of single layers is `windeye bench hilo`. Energies are of one "
    "photograph, in networks trained on digits."
)


def experiment(run: Run) -> Evidence:
    """Train every arm with every seed, look at its outputs, time them all, and judge by `RULE`.

    Raises:
        ImportError: scikit-learn, Pillow or Accelerate is missing.
    """
    plan = PLANS[run.budget]
    pieces = Pieces(run.recorder, run.progress, len(run.seeds) * (len(ARMS) + 0.5))
    trained = each_arm(
        pieces, ARMS, run.seeds, f"{plan.steps} steps",
        lambda arm, seed, tell: training.train(arm, plan, seed, run.device, tell),
    )  # fmt: skip
    with one_thread():
        timed = [pieces.do(f"speed, repetition {seed}", lambda _tell: training.speeds(plan), 0.5) for seed in run.seeds]
    rows = judgement.rows_of(trained, timed)
    return Evidence(
        slug="hilo",
        claim=CLAIM,
        rule=RULE,
        verdict=judgement.verdict(rows),
        checks=judgement.checks(rows),
        rows=rows,
        budget=run.budget,
        seeds=run.seeds,
        seconds=sum(o["seconds"] for arm in trained.values() for o in arm) + sum(t["seconds"] for t in timed),
        command=run.command,
        limits=LIMITS,
        pictures=(pictures.trade_off(rows), pictures.spectra(rows)),
    )
