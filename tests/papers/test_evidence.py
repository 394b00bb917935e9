"""Committed runs: each is what its experiment's own rule, claim and limits in the code say of its rows."""

from importlib import import_module
from pathlib import Path

import pytest

from windeye.papers import card, registry

ROOT = Path(__file__).parents[2]
RUN = sorted(path.stem for path in (ROOT / "evidence").glob("*.json"))


def paper_and_evidence(slug):
    found = card.find(slug)
    paper, evidence = registry.experiment_of(found), registry.evidence_of(found)
    assert evidence is not None
    return paper, evidence


@pytest.mark.parametrize("slug", RUN)
def test_it_is_a_real_run(slug):
    paper, evidence = paper_and_evidence(slug)
    assert evidence.slug == slug
    assert evidence.budget != "smoke"
    assert evidence.seeds == paper.SEEDS[evidence.budget]
    assert len(evidence.seeds) >= 3
    assert evidence.command.startswith(f"windeye run {slug}")
    assert all(row.n >= 1 for row in evidence.rows)


@pytest.mark.parametrize("slug", RUN)
def test_it_is_judged_by_the_rule_in_the_code(slug):
    paper, evidence = paper_and_evidence(slug)
    assert (evidence.claim, evidence.rule, evidence.limits) == (paper.CLAIM, paper.RULE, paper.LIMITS)
    judgement = paper if hasattr(paper, "checks") else import_module(f"{paper.__name__}.judgement")
    # The tasks of its budgets differ.
    plan = (paper.PLANS[evidence.budget],) if slug == "attention-perturbation" else ()
    assert evidence.checks == judgement.checks(evidence.rows, *plan)
    assert evidence.verdict == judgement.verdict(evidence.rows, *plan)
