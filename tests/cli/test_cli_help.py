"""What the command says of itself, and whether the README says the same."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dramatiq_durable.cli import main

README = (Path(__file__).parents[2] / "README.md").read_text()


def leaves(group=main, path=()):
    """The commands that do something, with the words that name them."""
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from leaves(each, (*path, name))
        else:
            yield (*path, name), each


LEAVES = dict(leaves())


def rows_of_the_readme():
    """``("monitor", "the row")`` for each row of the README's table of commands."""
    return re.findall(r"^(\| `dramatiq-durable (\w+).*)$", README, re.MULTILINE)


def option_names(command):
    return {name for param in command.params for name in param.opts if name.startswith("--")}


@pytest.fixture
def help_of():
    def of(path):
        result = CliRunner().invoke(main, [*path, "--help"])
        assert result.exit_code == 0
        return result.stdout

    return of


def test_the_readme_has_a_row_for_each_command_and_no_other():
    assert sorted(name for _, name in rows_of_the_readme()) == sorted(main.commands)


def test_the_readme_names_the_commands_of_schema():
    [row] = [row for row, name in rows_of_the_readme() if name == "schema"]
    assert {path for path in LEAVES if path[0] == "schema"} == {
        ("schema", word) for word in re.findall(r"schema (\w+)", row)
    }


@pytest.mark.parametrize(("row", "name"), rows_of_the_readme(), ids=lambda value: value.strip("| "))
def test_the_options_in_a_row_of_the_readme_exist(row, name):
    known = set().union(*(option_names(each) for path, each in LEAVES.items() if path[0] == name))
    assert set(re.findall(r"--[a-z-]+", row)) <= known


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_each_command_has_a_sentence_and_an_example(path, help_of):
    text = help_of(path)
    sentence = text.split("\n\n")[1].strip()
    assert sentence.endswith(".")
    assert f"dramatiq-durable {' '.join(path)} app:broker" in text
    assert "BROKER" in text


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_each_option_says_what_it_does(path):
    for param in LEAVES[path].params:
        if isinstance(param, click.Option):
            assert param.help, param.name


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_each_example_in_a_help_is_a_command_that_parses(path, help_of):
    examples = re.findall(r"^ +dramatiq-durable (.+)$", help_of(path), re.MULTILINE)
    assert examples
    for example in examples:
        words = example.partition(" > ")[0].split()
        result = CliRunner().invoke(main, ["--help" if w == "app:broker" else w for w in words])
        assert result.exit_code == 0, example
        known = option_names(LEAVES[path])
        assert {word for word in words if word.startswith("--")} <= known


def test_the_group_tells_its_commands_and_exit_codes(help_of):
    text = help_of(())
    assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in main.commands)
    for meaning in ("0 done", "1 failed", "2 usage or import", "3 database or broker unreachable"):
        assert meaning in " ".join(text.split())
        assert meaning in README


@pytest.mark.parametrize(
    ("line", "wrong", "help_of_it"),
    [
        ("stauts app:broker", "stauts", "dramatiq-durable --help"),
        ("--nope", "--nope", "dramatiq-durable --help"),
        ("schema nope", "nope", "dramatiq-durable schema --help"),
        ("status", "BROKER", "dramatiq-durable status --help"),
        ("list app:broker --state open", "open", "dramatiq-durable list --help"),
    ],
)
def test_a_usage_error_is_one_line_that_says_where_help_is(line, wrong, help_of_it):
    result = CliRunner().invoke(main, line.split(), prog_name="dramatiq-durable")
    assert (result.exit_code, result.stdout) == (2, "")
    [text] = result.stderr.splitlines()
    assert text.startswith("Error: ")
    assert wrong in text
    assert text.endswith(f"; see {help_of_it}")


@pytest.mark.parametrize("line", ["", "schema"])
def test_without_a_command_the_help_is_shown(line):
    result = CliRunner().invoke(main, line.split())
    assert "Commands:" in result.output
    assert "Error" not in result.output


def installed():
    return Path(sys.executable).with_name("dramatiq-durable")


@pytest.mark.parametrize("arguments", [["monitor", "--help"], ["nope"]])
def test_the_module_is_the_command(arguments, tmp_path):
    def run(*command):
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )

    script = run(str(installed()))
    module = run(sys.executable, "-m", "dramatiq_durable")
    assert script.returncode == module.returncode
    assert (script.stdout, script.stderr) == (module.stdout, module.stderr)


def test_it_says_its_version():
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.stdout) == (
        0,
        f"dramatiq-durable, version {version('dramatiq-durable')}\n",
    )
