"""The examples in README.md and docs/ work as they are printed.

A fence opened with ```` ```python run ```` is a whole program: it runs in a
fresh interpreter, in dev mode with warnings as errors, against a local
mongod, and where it names one, a MariaDB or a memcached. If the next fence is
```` ```text output ````, that is what it prints. Every other `python` fence is
compiled.

Rule: what a reader can copy is what runs here; nothing is added to a fence.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<body>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)

RUNNABLE = "python run"
OUTPUT = "text output"
EXAMPLE_SECONDS = 60
# In dev mode asyncio reports steps of more than 0.1 s. On a busy machine these
# say nothing about the example.
SLOW_STEP = re.compile(r"^Executing <.*> took [\d.]+ seconds\n", re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """One code block of a page."""

    page: str
    line: int
    info: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def padded(self) -> str:
        """The code on the lines that it has in its page, for tracebacks."""
        return "\n" * self.line + self.code


def fences(page: str, text: str) -> list[Fence]:
    found = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        body = match["body"].replace("\n" + match["indent"], "\n")
        code = body.removeprefix(match["indent"])
        found.append(Fence(page, line, match["info"].strip(), code))
    return found


def runnable(found: list[Fence]) -> list[tuple[Fence, Fence | None]]:
    """The programs, each with the output it promises, if it does."""
    following: list[Fence | None] = [*found, None]
    return [
        (fence, after if after is not None and after.info == OUTPUT else None)
        for fence, after in zip(found, following[1:], strict=True)
        if fence.info == RUNNABLE
    ]


ALL = [fences(str(page.relative_to(ROOT)), page.read_text()) for page in PAGES]
PROGRAMS = [pair for page in ALL for pair in runnable(page)]
SNIPPETS = [fence for page in ALL for fence in page if fence.info == "python"]


def test_the_pages_hold_programs() -> None:
    pages = {fence.page for fence, _ in PROGRAMS}
    assert {"README.md", "docs/tutorial.md", "docs/guide.md"} <= pages


def other_servers(program: Fence, request: pytest.FixtureRequest) -> dict[str, str]:
    """The variables by which *program* finds the servers that it names."""
    found = {}
    if "MYSQL_" in program.code:
        options = request.getfixturevalue("mariadb").options
        found.update({f"MYSQL_{name.upper()}": str(value) for name, value in options.items()})
    if "MEMCACHED_" in program.code:
        host, port = request.getfixturevalue("memcached").address
        found.update(MEMCACHED_HOST=host, MEMCACHED_PORT=str(port))
    return found


@pytest.mark.parametrize(
    "program, output", PROGRAMS, ids=[str(fence).replace("/", ".") for fence, _ in PROGRAMS]
)
def test_example_runs(
    program: Fence,
    output: Fence | None,
    mongod_uri: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    script = tmp_path / Path(program.page).with_suffix(".py").name
    script.write_text(program.padded())
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(script)],
        cwd=tmp_path,
        env={**os.environ, "MONGODB_URI": mongod_uri, **other_servers(program, request)},
        capture_output=True,
        text=True,
        timeout=EXAMPLE_SECONDS,
        check=False,
    )
    # A warning in a destructor is printed and does not change the exit code.
    complaints = SLOW_STEP.sub("", done.stderr)
    assert (complaints, done.returncode) == ("", 0)
    if output is not None:
        assert done.stdout == output.code


@pytest.mark.parametrize("fence", SNIPPETS, ids=lambda fence: str(fence).replace("/", "."))
def test_snippet_compiles(fence: Fence) -> None:
    compile(fence.padded(), fence.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_a_program_is_found_with_its_output_and_line() -> None:
    text = "Text\n\n```python run\nprint(1)\n```\n\nprints\n\n```text output\n1\n```\n"
    ((program, output),) = runnable(fences("page.md", text))
    assert (program.line, program.code) == (3, "print(1)\n")
    assert program.padded().splitlines()[3] == "print(1)"
    assert output is not None
    assert output.code == "1\n"


def test_an_indented_fence_loses_its_indentation() -> None:
    (fence,) = fences("page.md", "1. Item\n\n   ```python\n   if x:\n       y()\n   ```\n")
    assert fence.code == "if x:\n    y()\n"
