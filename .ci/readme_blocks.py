"""Runs the code blocks of Markdown files, in order, as a reader would: bash and python; stops at the first failure.

A block preceded by ``<!-- ci: skip, REASON -->`` is left out, and the reason is printed. A Python block must print each
line that a comment promises: ``# → line``.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

BLOCK = re.compile(
    r"(?:<!-- ci: skip, (?P<reason>.+?) -->\n)?^```(?P<language>bash|python)\n(?P<code>.*?)^```$", re.M | re.S
)
PROMISE = re.compile(r"^# → (.*)$", re.M)
VENV = Path(".venv/bin").resolve()


def main(paths: list[str]) -> int:
    """Run every block of the files; returns the exit code of the first that fails."""
    for path in paths:
        for block in BLOCK.finditer(Path(path).read_text(encoding="utf-8")):
            code = run(path, block)
            if code:
                return code
    return 0


def run(path: str, block: "re.Match[str]") -> int:
    """Run one block; 1 where it does not print what it promises."""
    title = f"{path}: {block['code'].strip().splitlines()[0]}"
    if block["reason"]:
        print(f"-- skipped: {title} ({block['reason']})", flush=True)
        return 0
    print(f"-- {block['language']}: {title}", flush=True)
    start, printed = time.monotonic(), ""
    if block["language"] == "bash":
        command = ["bash", "-eu", "-o", "pipefail", "-c", f'export PATH="{VENV}:$PATH"\n{block["code"]}']
        code = subprocess.run(command, check=False).returncode
    else:
        done = subprocess.run(
            [str(VENV / "python"), "-c", block["code"]], stdout=subprocess.PIPE, text=True, check=False
        )
        code, printed = done.returncode, done.stdout
        sys.stdout.write(printed)
    print(f"-- exit code {code} after {time.monotonic() - start:.0f} s", flush=True)
    lines = printed.splitlines()
    missing = [line for line in PROMISE.findall(block["code"]) if line not in lines]
    for line in missing:
        print(f"-- not printed: {line}", flush=True)
    return code or bool(missing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
