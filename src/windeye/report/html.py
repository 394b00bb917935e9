"""Self-contained HTML pages: no script, no link to anything outside, readable in any browser and in print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from windeye.report.evidence import Evidence, Picture

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2730; background: #fff; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem } .quiet { color: #66727d; font-size: .9rem }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #dde3e8 }
th:first-child, td:first-child { text-align: left } th { color: #66727d; font-weight: 600 }
figure { margin: 1.5rem 0 } figure img, figure svg { max-width: 100%; height: auto } pre { white-space: pre-wrap }
code, pre { background: #f2f5f7; padding: .1rem .3rem; border-radius: 3px }
.verdict { display: inline-block; padding: .15rem .7rem; border-radius: 1rem; color: #fff; background: #8a8a8a }
.verdict.shown { background: #3d8b37 } .verdict.opposite { background: #c0392b }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page from pieces made by the functions below."""
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, *, quiet: bool = False) -> str:
    return f'<p class="quiet">{escape(text)}</p>' if quiet else f"<p>{escape(text)}</p>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def picture(shown: Picture) -> str:
    """SVG goes in as it is, pixels as a data URL."""
    if shown.content.startswith("<svg"):
        content = shown.content
    elif shown.content.startswith("data:image/"):
        content = f'<img alt="{escape(shown.title)}" src="{shown.content}">'
    else:
        raise ValueError(f"picture {shown.title!r} is neither SVG nor an image data URL")
    return f"<figure>{content}<figcaption><b>{escape(shown.title)}.</b> {escape(shown.caption)}</figcaption></figure>"


def facts(values: dict[str, str]) -> str:
    return paragraph(" · ".join(f"{name} {value}" for name, value in values.items()), quiet=True)


def evidence_page(evidence: Evidence) -> str:
    """The page of one experiment: claim, rule, verdict, checks, pictures, rows, and how to run it again."""
    verdict = f'<p><span class="verdict {evidence.verdict.split()[0]}">{escape(evidence.verdict)}</span></p>'
    rows = [
        (r.arm, r.metric, f"{r.mean:.4g}", f"{r.spread:.2g}" if r.n > 1 else "", str(r.n), r.unit)
        for r in evidence.rows
    ]
    return page(
        f"{evidence.slug}: {evidence.verdict}",
        [
            verdict,
            paragraph(evidence.claim),
            heading("Rule, fixed before the run"),
            paragraph(evidence.rule),
            table(
                ("demand", "measured", "held"),
                [(c.demand, c.measured, "yes" if c.held else "no") for c in evidence.checks],
            ),
            heading("Measured"),
            # Some experiments have a hundred rows: what is to be seen comes before them.
            *(picture(p) for p in evidence.pictures),
            table(("arm", "metric", "mean", "spread", "n", "unit"), rows),
            *([heading("Limits"), paragraph(evidence.limits)] if evidence.limits else []),
            heading("Again"),
            f"<pre>{escape(evidence.command)}</pre>",
            paragraph(
                f"budget {evidence.budget}, seeds {', '.join(map(str, evidence.seeds))}, {evidence.seconds:.0f} s",
                quiet=True,
            ),
            facts(evidence.machine),
            facts(evidence.versions),
        ],
    )
