"""`afresh.js` in Node, its size, and what TypeScript thinks of it."""

import gzip
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import STATIC

TESTS = sorted((Path(__file__).parent / "js").glob("*.test.js"))
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", TESTS, ids=[path.name.split(".")[0] for path in TESTS])
def test_it_does_what_its_own_tests_say(node: str, path: Path) -> None:
    run = subprocess.run(
        [node, "--test", "--test-reporter=spec", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"pass (\d+)", run.stdout)
    assert passed is not None
    assert int(passed[1]) == len(re.findall(r'^test\("', path.read_text(), re.MULTILINE))


def test_it_is_small_when_it_travels() -> None:
    assert len(gzip.compress((STATIC / "afresh.js").read_bytes(), compresslevel=9)) < 8000


def test_it_exports_what_its_types_say() -> None:
    pattern = r"^export (?:const|class|function) (\w+)"
    scripts, types = (
        set(re.findall(pattern, (STATIC / name).read_text(), re.MULTILINE))
        for name in ("afresh.js", "afresh.d.ts")
    )
    assert scripts == types


CHECK = """
import * as all from "./implementation.js";
import type * as promised from "./afresh.d.ts";

export const checked: typeof promised = all;
"""


def test_it_is_of_the_types_that_it_says(tmp_path: Path) -> None:
    compiler = os.environ.get("AFRESH_TSC") or shutil.which("tsc")
    if compiler is None:
        pytest.skip("TypeScript is not installed; set AFRESH_TSC to its compiler, tsc")
    shutil.copy(STATIC / "afresh.d.ts", tmp_path)
    shutil.copy(STATIC / "afresh.js", tmp_path / "implementation.js")
    (tmp_path / "check.ts").write_text(CHECK)
    options = ["--noEmit", "--allowJs", "--strict", "--noImplicitAny", "false"]
    options += ["--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"]
    options += ["--allowImportingTsExtensions", "--lib", "es2023,dom,dom.iterable"]
    run = subprocess.run(
        [compiler, *options, "check.ts"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stdout
