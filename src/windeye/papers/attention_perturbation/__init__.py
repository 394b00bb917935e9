"""Attention AT: classifiers trained against the worst small change of their attention scores, attacked there."""

from __future__ import annotations

from functools import partial

from windeye.papers.attention_perturbation.evaluation import ACCURACY
from windeye.papers.attention_perturbation.judgement import CLAIM, LIMITS, OVER_PLAIN, RULE, checks, named, verdict
from windeye.papers.attention_perturbation.pictures import pictures
from windeye.papers.attention_perturbation.plan import ARMS, PLANS
from windeye.papers.attention_perturbation.speed import SIZES, step_times
from windeye.papers.attention_perturbation.training import Outcome, train
from windeye.papers.experiment import Budget, Run, one_thread
from windeye.report import Evidence, Pieces, Row

SEEDS: dict[Budget, tuple[int, ...]] = {"smoke": (0,), "default": (0, 1, 2, 3, 4), "full": (0, 1, 2, 3, 4)}


def experiment(run: Run) -> Evidence:
    """Train every arm on every task with every seed and judge by `RULE`.

    Raises:
        windeye.data.AssetUnavailable: a collection could not be brought here.
    """
    plan = PLANS[run.budget]
    trainings = len(run.seeds) * sum(len(task.arms) for task in plan.tasks.values())
    pieces = Pieces(run.recorder, run.progress, trainings + 1)
    found: dict[str, list[Outcome]] = {named(name, arm): [] for name, task in plan.tasks.items() for arm in task.arms}
    with one_thread():
        times: dict[str, float] = pieces.do("time of a step", lambda _tell: step_times(SIZES[run.budget]))
        # Seed by seed, so that a run that is stopped has whole seeds.
        for seed in run.seeds:
            for name, task in plan.tasks.items():
                for arm in task.arms:
                    work = partial(train, ARMS[arm], task, plan, seed, run.device)
                    found[named(name, arm)].append(pieces.do(f"{named(name, arm)}, seed {seed}", work))
    rows = (*rows_of(found), *(Row(arm, OVER_PLAIN, (ratio,)) for arm, ratio in times.items()))
    return Evidence(
        slug="attention-perturbation",
        claim=CLAIM,
        rule=RULE,
        verdict=verdict(rows, plan),
        checks=checks(rows, plan),
        rows=rows,
        budget=run.budget,
        seeds=run.seeds,
        seconds=sum(outcome["seconds"] for outcomes in found.values() for outcome in outcomes),
        command=run.command,
        limits=LIMITS,
        pictures=pictures(rows, plan),
    )


def rows_of(found: dict[str, list[Outcome]]) -> tuple[Row, ...]:
    """One row per arm and measure, a value per seed."""
    return tuple(
        Row(arm, metric, tuple(outcome["measured"][metric] for outcome in outcomes), _unit(metric))
        for arm, outcomes in found.items()
        for metric in outcomes[0]["measured"]
    )


def _unit(metric: str) -> str:
    return "share" if metric.startswith(ACCURACY) else ""
