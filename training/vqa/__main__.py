"""List the Med-VQA data sets and what is there: ``python -m training.vqa [NAME …] [--data-root DIR]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kg_targets.manifest import Manifest, Question, ReadReport, known_data_sets
from training.command import ArgumentParser, run_command
from training.data.files import resolve
from training.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = ArgumentParser("python -m training.vqa", description=__doc__)
    command.add_argument("name", nargs="*", help="data sets, by name or manifest; default: all")
    command.add_argument("--data-root", help="where the files of the one data set named are")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the list; 2 for a user's error."""
    return run_command(parser(), show, arguments)


def show(options: argparse.Namespace) -> None:
    """Everything that the command does.

    Raises:
        KGTargetsError: a name, a manifest or a file is not usable.
    """
    manifests = [Manifest.load(name, "questions") for name in options.name] or known_data_sets("questions")
    if options.data_root is not None:
        if len(options.name) != 1:
            raise ConfigError("--data-root is the folder of one data set: name it, and no other")
        if not Path(options.data_root).is_dir():
            raise ConfigError(f"--data-root {options.data_root} is not a folder")
    for manifest in manifests:
        root = Path(options.data_root) if options.data_root else manifest.default_root
        sys.stdout.write("\n".join(describe(manifest, root)) + "\n")


def describe(manifest: Manifest, root: Path) -> list[str]:
    """For people: a data set, and its splits as they are under ``root``.

    Raises:
        KGTargetsError: a file that is there is malformed.
    """
    lines = [f"{manifest.name}: {manifest.title} (licence: {manifest.licence})"]
    present = manifest.present_splits(root)
    for split, spec in manifest.splits.items():
        expected = f" of {spec.expected_questions:,}" if spec.expected_questions else ""
        if split not in present:
            lines.append(f"  {split:<10} not in {root}")
            continue
        report = ReadReport()
        questions = manifest.questions(split, root, report)
        published = {True: "as published", False: "NOT the published files", None: "not checked"}
        lines.append(
            f"  {split:<10} {len(questions):,}{expected} questions "
            f"({published[manifest.questions_are_published(split, root)]}), {_images(questions, root)}"
        )
        lines += [f"  {'':<10} {line}" for line in report.lines()]
    if not present:
        lines.append(f"  {manifest.how_to_get}")
    return lines


def _images(questions: list[Question], root: Path) -> str:
    paths = {question.image_id: question.image_path for question in questions}
    if not any(paths.values()):
        return f"{len(paths):,} images named, the data set has none here"
    found = sum(resolve(root, path).is_file() for path in paths.values())
    return f"{found:,} of {len(paths):,} images found"


if __name__ == "__main__":
    sys.exit(main())
