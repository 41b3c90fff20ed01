"""Made-up inputs, stages and outputs in the place of the real ones."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline import registry
from pipeline.registry import Kind

KINDS: tuple[Kind, ...] = ("input", "stage", "output")


@contextmanager
def parts(folder: Path, **modules: dict[str, str]) -> Iterator[None]:
    """Have only these: `inputs`, `stages` and `outputs`, each the texts of modules by name."""
    for kind in KINDS:
        package = folder / f"fake_{kind}s"
        package.mkdir()
        for name, text in {"__init__": "", **modules[f"{kind}s"]}.items():
            (package / f"{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for kind in KINDS:
            patch.setitem(registry.PACKAGES, kind, f"fake_{kind}s")
        yield
    for name in [name for name in sys.modules if name.startswith("fake_")]:
        del sys.modules[name]
