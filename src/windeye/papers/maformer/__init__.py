"""MAFormer: is fusing local windows with global tokens by attention better than adding them?"""

from __future__ import annotations

from windeye.papers.arms import each_arm
from windeye.papers.experiment import Budget, Run, one_thread
from windeye.papers.maformer import judgement, pictures, training
from windeye.papers.maformer.judgement import AHEAD, WEAK
from windeye.papers.maformer.plan import ABLATIONS, ARMS, PLANS
from windeye.papers.maformer.speed import CASES, Case, Speeds, measure
from windeye.report import Evidence, Pieces

SEEDS: dict[Budget, tuple[int, ...]] = {"smoke": (0,), "default": (1, 2, 3), "full": (1, 2, 3, 4, 5)}

CLAIM = (
    "Where both scales are needed, fusing a local branch with global tokens by attention beats joining the same "
    "branches by a linear map of both or by their sum, and neither branch can do without the other."
)
RULE = (
    "Share of held-out scenes, of scans that were not trained on, in which the large and the small digit are both "
    "named rightly, in percent, paired by seed; five networks whose sizes are within 2 %. Shown if all of: fusion by "
    "attention is ahead of concatenation on the mean and in every seed; it is ahead of the sum by at least "
    f"{AHEAD:g} point on the mean and in every seed; concatenation is not behind the sum on the mean; fusion by "
    "attention is ahead of either branch alone in every seed; the local branch alone is at least "
    f"{WEAK:g} points behind it on the large digit, and the global branch alone as far behind it on the small one. "
    f"Opposite if the sum is ahead of fusion by attention by at least {AHEAD:g} point on the mean and in every seed. "
    "Numbers of global tokens and times are reported and decide nothing."
)
LIMITS = (
    "A toy, and a re-design: no official code is known. 12x12 tokens of 4x4 pixels, "
    f"{PLANS['default'].blocks} blocks of width {PLANS['default'].dim}, {PLANS['default'].steps} steps of "
    f"{PLANS['default'].batch} scenes made of 1,297 scanned digits of 8x8 pixels. There is no full attention behind "
    "the blocks, which would look everywhere for every network. The large digit fills the scene: in single runs of 200 "
    "steps with a seed that is not reported none of three networks learned one that moves in a larger scene. Networks "
    "with fewer weights over positions have wider feed-forward parts instead, which takes longer; networks with other "
    "numbers of global tokens differ in size. Times are of single blocks in inference, on one thread of a machine that "
    "other work may keep busy."
)


def experiment(run: Run) -> Evidence:
    """Train every arm with every seed, time a block and its parts, and judge by `RULE`.

    Raises:
        ImportError: scikit-learn or Accelerate is missing.
    """
    plan = PLANS[run.budget]
    arms = (*ARMS, *ABLATIONS)
    cases = (Case(1, 14, 64),) if run.budget == "smoke" else CASES
    pieces = Pieces(run.recorder, run.progress, len(arms) * len(run.seeds) + 0.5 * len(cases))
    trained = each_arm(
        pieces, arms, run.seeds, f"{plan.steps} steps",
        lambda arm, seed, tell: training.train(arm, plan, seed, run.device, tell),
    )  # fmt: skip

    def time(case: Case) -> Speeds:
        return pieces.do(f"time of a block, {case.name}", lambda _tell: measure(case, plan.rounds), 0.5)

    with one_thread():
        timed = {case.name: time(case) for case in cases}
    rows = judgement.rows_of(trained, timed)
    return Evidence(
        slug="maformer",
        claim=CLAIM,
        rule=RULE,
        verdict=judgement.verdict(rows),
        checks=judgement.checks(rows),
        rows=rows,
        budget=run.budget,
        seeds=run.seeds,
        seconds=sum(o["seconds"] for arm in trained.values() for o in arm) + sum(t["seconds"] for t in timed.values()),
        command=run.command,
        limits=LIMITS,
        pictures=(pictures.examples(), pictures.by_arm(rows), pictures.by_ratio(rows)),
    )
