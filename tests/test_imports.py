"""What importing costs, and which way imports point."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = (
    "matplotlib",
    "scipy",
    "sklearn",
    "PIL",
    "rich",
    "typer",
    "torch._inductor",
    "torch.nn.attention.flex_attention",
)


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_costs_less_than_a_third_of_a_second_beyond_torch():
    code = "import torch, time; t = time.perf_counter(); import windeye; print(time.perf_counter() - t)"
    # The best of five: what a busy machine adds is not the package's.
    assert any(float(python(code)) < 0.3 for _ in range(5))


def test_importing_loads_nothing_heavy_and_subpackages_come_when_they_are_asked_for():
    code = f"""
import torch, sys
before = set(sys.modules)
import windeye
print([m for m in {HEAVY} if m in set(sys.modules) - before], "windeye.models" in sys.modules)
print(windeye.models.create.__name__, windeye.nn.__name__)
"""
    assert python(code).splitlines() == ["[] False", "create windeye.nn"]


def test_subpackages_that_are_not_there_are_no_attributes():
    with pytest.raises(AttributeError, match="no attribute 'model'"):
        __import__("windeye").model  # noqa: B018


def test_the_command_line_starts_without_drawing():
    assert python("import windeye.cli.main, sys; print('matplotlib' in sys.modules)") == "False"


def test_imports_point_one_way():
    from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml")) == EXIT_STATUS_SUCCESS


@pytest.mark.parametrize("name", ["utils", "helpers", "misc", "common"])
def test_no_file_without_a_subject(name):
    assert not list((ROOT / "src").rglob(f"{name}.py"))


def test_the_package_says_its_version():
    import windeye

    declared = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert windeye.__version__ == declared[1]


def test_python_sources_stay_short():
    long = {p.name: n for p in (ROOT / "src").rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}


def test_without_the_compiled_module_the_package_works_and_says_what_is_missing():
    code = """
import sys
sys.modules["windeye._cpu"] = None
import torch, windeye
q = torch.randn(1, 9, 2, 8)
print(windeye.attend(q, q, q, windeye.Sliding(3)).shape, windeye.explain(q, q, q).backend)
try:
    windeye.attend(q, q, q, backend="cpu")
except ValueError as error:
    print(error)
"""
    said = python(code)
    assert "torch.Size([1, 9, 2, 8]) reference" in said
    assert "the compiled module is missing" in said
    assert "compiler" in said
