"""Writes constraints.txt: the newest versions that the dependency groups resolve to.

Run by `make constraints` once for all interpreters at hand. Each one resolves the groups of
pyproject.toml with its own pip (nothing is installed); a version that differs between them, or is
needed by some only, gets an environment marker. Only names and versions are written.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEADER = "# The versions that development and CI use; `make constraints` writes this file.\n"


def resolve(python: str, groups: list[str]) -> tuple[str, dict[str, str]]:
    """What the groups resolve to for one interpreter: its ``3.x`` and a version for each name."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [str(Path(folder, "bin", "python")), "-m", "pip", "--quiet"]
        # The pip that a venv comes with may be too old to know dependency groups.
        subprocess.run([*pip, "install", "--upgrade", "pip"], check=True, stderr=subprocess.DEVNULL)
        flags = [flag for group in groups for flag in ("--group", group)]
        answer = subprocess.run(
            [*pip, "install", "--dry-run", "--ignore-installed", "--report", "-", "pip", *flags],
            check=True,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    report = json.loads(answer.stdout)
    versions = {
        re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(): item["metadata"]["version"]
        for item in report["install"]
    }
    return report["environment"]["python_version"], versions


def merge(resolved: dict[str, dict[str, str]]) -> list[str]:
    """One line a name where all interpreters agree, else one line an interpreter, with a marker."""
    lines = []
    for name in sorted({name for versions in resolved.values() for name in versions}):
        found = {python: versions.get(name) for python, versions in resolved.items()}
        if len(set(found.values())) == 1:
            lines.append(f"{name}=={next(iter(found.values()))}")
            continue
        lines.extend(
            f'{name}=={version}; python_version == "{python}"'
            for python, version in found.items()
            if version is not None
        )
    return lines


def main(interpreters: list[str]) -> None:
    """Resolve for every interpreter and write the file."""
    groups = list(tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"])
    resolved = dict(resolve(python, groups) for python in interpreters)
    lines = merge(resolved)
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(lines) + "\n")
    print(f"constraints.txt: {len(lines)} lines for {', '.join(resolved)}")


if __name__ == "__main__":
    main(sys.argv[1:])
