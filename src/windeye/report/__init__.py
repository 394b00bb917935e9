"""Evidence of runs, and the pages that show it."""

from windeye.report.budget import BUDGETS, Budget
from windeye.report.evidence import Check, Evidence, Picture, Row, Verdict, load, machine, versions
from windeye.report.html import evidence_page, page
from windeye.report.recorder import Recorder

__all__ = [
    "BUDGETS",
    "Budget",
    "Check",
    "Evidence",
    "Picture",
    "Recorder",
    "Row",
    "Verdict",
    "evidence_page",
    "load",
    "machine",
    "page",
    "versions",
]
