"""What a library user sees before anything is loaded: names, types, and what to install when torch is missing."""

import subprocess
import sys

import kg_targets
import kg_targets.store
from tests import REPOSITORY


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Python without torch: the import of a module that is None in sys.modules fails as if it were not installed."""
    blocked = f"import sys; sys.modules['torch'] = None; {code}"
    return subprocess.run([sys.executable, "-c", blocked], cwd=REPOSITORY, capture_output=True, text=True)


def test_lazy_names_are_listed_and_loaded_on_first_use() -> None:
    assert {"Manifest", "Ontology", "TargetStore", "__version__"} <= set(dir(kg_targets))
    assert set(kg_targets.store.__all__) <= set(dir(kg_targets.store))
    assert all(getattr(kg_targets, name) for name in kg_targets.__all__)
    done = run(
        "import kg_targets; dir(kg_targets); print('numpy' in sys.modules); kg_targets.TargetStore; import numpy"
    )
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_an_unknown_name_is_an_attribute_error_that_names_the_package() -> None:
    done = run("import kg_targets; kg_targets.Store")
    assert "module 'kg_targets' has no attribute 'Store'" in done.stderr


def test_without_torch_the_losses_say_which_extra_brings_it_in_one_line() -> None:
    message = "kg_targets.losses needs torch: pip install 'kg-targets[train]'"
    for statement in (
        "import kg_targets.losses",
        "from kg_targets import losses",
        "from kg_targets.losses import softmax_policy",
        "from kg_targets.losses.contrastive import info_nce_loss",
        "from training.nb_clip.losses import info_nce_loss",
    ):
        done = run(statement)
        assert done.stderr.splitlines()[-1] == f"kg_targets.errors.MissingExtraError: {message}", statement
    assert (
        run(f"""
try:
    import kg_targets.losses
except ImportError as error:
    sys.exit(0 if str(error) == {message!r} and error.name == 'torch' else 1)
""").returncode
        == 0
    )


def test_without_torch_everything_else_imports() -> None:
    done = run(
        "import kg_targets.inspect.card, kg_targets.concepts, kg_targets.scoring; from kg_targets import *"
    )
    assert done.returncode == 0, done.stderr


def test_packages_are_marked_as_typed() -> None:
    for name in ("kg_targets", "pipelines", "training"):
        assert (REPOSITORY / name / "py.typed").is_file()
        assert f'{name} = ["py.typed"' in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
