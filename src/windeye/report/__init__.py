"""Evidence of runs, and the pages that show it."""

from windeye.report.budget import BUDGETS, Budget
from windeye.report.evidence import Check, Evidence, Picture, Row, Verdict, load, machine, versions
from windeye.report.html import evidence_page, page
from windeye.report.pieces import Pieces, Tell, silent
from windeye.report.recorder import Recorder

__all__ = [
    "BUDGETS",
    "Budget",
    "Check",
    "Evidence",
    "Picture",
    "Pieces",
    "Recorder",
    "Row",
    "Tell",
    "Verdict",
    "evidence_page",
    "load",
    "machine",
    "page",
    "silent",
    "versions",
]
