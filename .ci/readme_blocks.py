"""Runs the code blocks of a Markdown file, in order, as a reader would: bash and python; stops at the first failure.

A block preceded by ``<!-- ci: skip, REASON -->`` is left out, and the reason is printed.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

BLOCK = re.compile(
    r"(?:<!-- ci: skip, (?P<reason>.+?) -->\n)?^```(?P<language>bash|python)\n(?P<code>.*?)^```$", re.M | re.S
)
VENV = Path(".venv/bin").resolve()


def main(path: str) -> int:
    """Run every block of the file; returns the exit code of the first that fails."""
    for block in BLOCK.finditer(Path(path).read_text(encoding="utf-8")):
        title = block["code"].strip().splitlines()[0]
        if block["reason"]:
            print(f"-- skipped: {title} ({block['reason']})", flush=True)
            continue
        print(f"-- {block['language']}: {title}", flush=True)
        start = time.monotonic()
        if block["language"] == "bash":
            command = ["bash", "-eu", "-o", "pipefail", "-c", f'export PATH="{VENV}:$PATH"\n{block["code"]}']
        else:
            command = [str(VENV / "python"), "-c", block["code"]]
        code = subprocess.run(command, check=False).returncode
        print(f"-- exit code {code} after {time.monotonic() - start:.0f} s", flush=True)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
