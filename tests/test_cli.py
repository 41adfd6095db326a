"""The command line: where it finds what it is told, and what it says when it does not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from afresh.cli import main

SHOP = """\
import msgspec

from afresh.app import App
from afresh.graph import ComputeService, compute_method
from afresh.rpc.contracts import rpc_service
from afresh.rpc.naming import DOTNET


class Order(msgspec.Struct):
    id: str


class Orders(ComputeService):
    @compute_method
    async def for_user(self, user_id: str) -> list[Order]:
        return []


@rpc_service(backend=True)
class Vault:
    async def open(self) -> str:
        return ""


class Helper:
    def help(self):
        pass


class Outer:
    class Inner:
        async def get(self) -> int:
            return 1


app = App()
app.add(Orders())
app.add(Vault())
dotnet_app = App(naming=DOTNET)
dotnet_app.add(Orders())
number = 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module in it, from which the command is called."""
    (tmp_path / "a_shop.py").write_text(SHOP)
    (tmp_path / "a_broken_shop.py").write_text("import no_such_module\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("a_shop", "a_broken_shop"):
        sys.modules.pop(name, None)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["ts", *arguments]) == 0
    return capsys.readouterr().out


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["ts", *arguments]) == 2
    out, text = capsys.readouterr()
    assert not out
    return text


def test_a_contract_is_written(folder: Path, capsys: pytest.CaptureFixture[str]):
    text = shown(capsys, "a_shop:Orders")
    assert "for_user(user_id: string): LiveCall<Order[]>;" in text
    assert "Orders: Orders;" in text


def test_an_app_is_written_but_for_what_pages_can_not_call(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    text = shown(capsys, "a_shop:app")
    assert "for_user(user_id: string): LiveCall<Order[]>;" in text
    assert "Vault" not in text
    assert shown(capsys, "a_shop:app.hub") == text


def test_several_things_are_written_once_each(folder: Path, capsys: pytest.CaptureFixture[str]):
    text = shown(capsys, "a_shop:app", "a_shop:Orders", "a_shop:Outer.Inner", "a_shop:Vault")
    assert text.count("interface Orders {") == 1
    assert "interface Inner {" in text
    assert "interface Vault {" in text


def test_names_are_those_of_the_app(folder: Path, capsys: pytest.CaptureFixture[str]):
    text = shown(capsys, "a_shop:dotnet_app")
    assert "IOrders: Orders;" in text
    assert shown(capsys, "a_shop:Orders", "--naming", "dotnet") == text


def test_a_file_is_written_where_one_is_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    text = shown(capsys, "a_shop:Orders")
    assert shown(capsys, "a_shop:Orders", "-o", "shop.d.ts") == ""
    assert (folder / "shop.d.ts").read_text(encoding="utf-8") == text


def test_what_is_not_there_is_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert "there is no module 'a_stop' here" in complaint(capsys, "a_stop:Orders")
    assert "there is no 'Order5' in a_shop" in complaint(capsys, "a_shop:Order5")
    assert "there is no 'Deep' in a_shop" in complaint(capsys, "a_shop:Outer.Deep")
    assert "no module 'no_such_module'" in complaint(capsys, "a_broken_shop:app")


@pytest.mark.parametrize("source", ["a_shop", "a_shop:", ":app", ""])
def test_what_is_no_place_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], source: str):
    assert "is no place: write module:name" in complaint(capsys, source)


def test_what_is_no_contract_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert "is neither an App nor a contract" in complaint(capsys, "a_shop:number")
    assert "Helper.help can't be called from elsewhere" in complaint(capsys, "a_shop:Helper")


def test_a_file_that_can_not_be_written_is_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "taken").mkdir()
    assert "afresh: taken can't be written: " in complaint(capsys, "a_shop:app", "-o", "taken")


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2
    assert "usage: afresh" in capsys.readouterr().err


def test_modules_are_found_from_where_the_command_is_called(folder: Path):
    """As the installed command runs: without the folder on the path."""
    code = "import sys; from afresh.cli import main; sys.path.remove(''); sys.exit(main())"
    command = [sys.executable, "-c", code, "ts", "a_shop:Orders"]
    source = Path(__file__).parent.parent / "src"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source)])}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "interface Orders {" in done.stdout
