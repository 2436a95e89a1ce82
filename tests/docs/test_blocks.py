"""Every code block of README and docs names commands, options and imports that exist; CI runs those it can."""

import ast
import re
import shlex
from importlib import import_module

import pytest

from pipelines.cli import find_command, load_command
from tests import REPOSITORY
from training.arguments import config_parser
from training.tasks import find_task

PAGES = [
    REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "data_manifests").glob("*.md")),
]  # fmt: skip
BLOCK = re.compile(
    r"(?:<!-- ci: skip, (?P<reason>.+?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
BLOCKS = [
    pytest.param(block, id=f"{page.name}:{text.count(chr(10), 0, block.start('code'))}")
    for page in PAGES
    for text in [page.read_text(encoding="utf-8")]
    for block in BLOCK.finditer(text)
]
MAKE = set(re.findall(r"^([a-z0-9]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.M))
LAUNCH = ["accelerate", "launch", "training/run.py"]
OTHERS = {"python3", ".", "pip", "eval", "tar", "git", "export", "mkdir", "cat"}
"""Programs that are not ours."""


def commands(code: str) -> list[list[str]]:
    code = re.sub(r"<<'(\w+)'\n.*?^\1$", "", code, flags=re.M | re.S)  # the content of files
    lines = code.replace("\\\n", " ").splitlines()
    split = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [words for words in split if words]


def check_command(words: list[str]) -> None:
    if words[0] == "kg-targets" and words[1] != "--help":
        name, rest = find_command(words[1:])
        parser, _ = load_command(name)
        parser.parse_args(rest)
    elif words[:3] == LAUNCH:
        flags = words[3:]
        config = find_task(flags).config
        names = {action.dest for action in config_parser(config, "run")._actions}
        given = [flag[2:].partition("=")[0] for flag in flags if flag.startswith("--")]
        assert set(given) <= names, set(given) - names
    elif words[0] == "make":
        assert words[1] in MAKE and all(re.match(r"[A-Z_]+=", word) for word in words[2:])
    elif words[0] == "python":
        assert (REPOSITORY / words[1]).is_file()
    else:
        assert words[0] in OTHERS or words[:2] == ["kg-targets", "--help"], words


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_says_its_language_and_names_what_there_is(
    block: "re.Match[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(REPOSITORY)
    assert block["language"] in ("bash", "python", "yaml", "text")
    if block["language"] == "bash":
        for words in commands(block["code"]):
            check_command(words)
    if block["language"] == "python":
        for node in ast.walk(ast.parse(block["code"])):
            if isinstance(node, ast.ImportFrom):
                module = import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    import_module(alias.name)


def test_every_relative_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if target and "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_in_code_spans_exist() -> None:
    for page in PAGES:
        for span in re.findall(
            r"`(kg-targets [a-z][^`]*)`", page.read_text(encoding="utf-8").replace("\n", " ")
        ):
            for words in span.split(" | ") if " | " in span else [span]:
                find_command(shlex.split(words.removeprefix("kg-targets "))[:2])
