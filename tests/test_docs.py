"""Every example in a docstring runs, and the README's table is the committed measurement."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import windeye

ROOT = Path(__file__).parents[1]
MODULES = sorted(m.name for m in pkgutil.walk_packages(windeye.__path__, "windeye.") if not m.name.endswith("._cpu"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    if ".triton." in name:
        pytest.importorskip("triton")
    if name.startswith(("windeye.hf", "windeye.inspection.images.encoders")):
        pytest.importorskip("transformers")
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_public_names_have_docstrings_with_examples():
    for name in windeye.__all__:
        text = getattr(windeye, name).__doc__
        assert text, f"{name} has no docstring"
        if name != "Pattern":
            assert ">>>" in text, f"{name} has no example"


@pytest.mark.parametrize("page", ["readme", "performance"])
def test_pages_show_the_committed_measurements(page):
    """`make tables` writes them."""
    from windeye.bench import pages

    text = (ROOT / {"readme": "README.md", "performance": "docs/performance.md"}[page]).read_text()
    assert getattr(pages, page)(text, pages.committed(ROOT)) == text


def test_pages_of_the_site_exist():
    nav = [line for line in (ROOT / "mkdocs.yml").read_text().splitlines() if line.strip().endswith(".md")]
    pages = [line.split(":")[-1].strip() for line in nav]
    assert pages
    missing = [page for page in pages if not (ROOT / "docs" / page).is_file()]
    assert missing == []


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_python_blocks_run(path):
    """Blocks of a page run in order, in one namespace; a block marked ``python no-run`` is left out."""
    if path.stem in ("huggingface", "perturbation", "sites"):
        pytest.importorskip("transformers")
    blocks, current = [], None
    for line in path.read_text().splitlines():
        if line.strip() == "```python":
            current = []
        elif line.strip() == "```" and current is not None:
            blocks.append("\n".join(current))
            current = None
        elif current is not None:
            current.append(line)
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, str(path), "exec"), namespace)
