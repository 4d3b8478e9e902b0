"""The command line in a terminal of 80 columns: help that fits, tables that break no word and keep what they are about.

Also what scripts rely on: errors as JSON, and a reader that ends early.
"""
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios

import pytest
from conftest import BINARY


def terminal(args, columns, folder):
    """What a command prints on a terminal, with line ends as they are and without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NDXP_") and name != "COLUMNS"}
    process = subprocess.Popen([BINARY, *args], cwd=folder, env=clean | {"TERM": "xterm", "NDXP_LOG": "error"},
                               stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    try:
        while part := os.read(ours, 65536):
            printed += part
    except OSError:  # The process has ended.
        pass
    os.close(ours)
    process.wait()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode()).replace("\r\n", "\n")


def below(page):
    part = re.search(r"^Commands:\n(.*?)(?:\n\n|\Z)", page, re.M | re.S)
    found = re.findall(r"^  ([a-z0-9-]+)(?:  |$)", part[1], re.M) if part else []
    return [name for name in found if name != "help"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The help of every command at 80 columns."""
    folder, found, waiting = tmp_path_factory.mktemp("help"), {}, [()]
    while waiting:
        words = waiting.pop()
        found[words] = terminal([*words, "--help"], 80, folder)
        waiting += [(*words, name) for name in below(found[words])]
    assert len(found) > 80
    return found


def wider(pages):
    return {" ".join(words): line for words, page in pages.items() for line in page.split("\n") if len(line) > 80}


def test_no_help_is_wider_than_80_columns(pages):
    assert not {name: line for name, line in wider(pages).items() if not line.startswith("Usage: ")}


def test_no_usage_line_is_wider_than_80_columns(pages):
    assert not wider(pages)


# A table at 80 columns has no word that it does not have with all its room.
TABLES = ["client list", "client show one-stop-shop", "grant list", "staff list", "token list", "keys list", "certs show",
          "contract list", "audit search --limit 40", "audit report", "doctor --offline"]


# Where src/cli/layout.rs may end a line: in addresses and lists; in names, too, where a column would go otherwise.
ENDS = r"[\s/,:]+"
JOINTS = ENDS + r"|(?<=_)|(?<=[a-z])(?=[A-Z])"


def words(printed, ends=ENDS):
    """The words in the cells of tables."""
    cells = [cell for line in printed.split("\n") if line.startswith("│") for cell in re.split("[│┆]", line)]
    found = {word for cell in cells for word in re.split(ends, cell)} - {"", "more"}
    # Of long ids only the beginning is there, with an ellipsis.
    return {word for word in found if not word.endswith("…")}


@pytest.mark.parametrize("command", TABLES)
def test_a_table_breaks_no_word_and_fits(stage, command):
    narrow = terminal(command.split(), 80, stage.folder)
    rows = [line for line in narrow.split("\n") if line[:1] in "┌│╞└"]
    assert len(rows) > 3 and all(len(row) <= 80 for row in rows), narrow
    counts = re.compile(r"\d+")
    whole = words(terminal([*command.split(), "--wide"], 200, stage.folder), JOINTS)
    cut = {word for word in words(narrow, JOINTS) - whole if not counts.fullmatch(word)}
    assert not cut, f"{cut} in:\n{narrow}"


@pytest.mark.parametrize("columns", [80, 200])
def test_the_tables_of_the_demo_break_no_word(tmp_path, columns):
    shown = words(terminal(["demo"], columns, tmp_path))
    reasons = {"TOKEN_NOT_BOUND_TO_CERTIFICATE", "OPERATION_UNKNOWN", "ListParcelsByOwner", "ListRegistrationsOfToday"}
    assert reasons <= shown, reasons - shown


def test_a_search_keeps_what_was_done_and_how_it_ended(stage):
    printed = terminal(["audit", "search", "--limit", "1000"], 80, stage.folder)
    header = next(line for line in printed.split("\n") if line.startswith("│"))
    assert "action" in header and "outcome" in header, header


def json_error(folder, *args):
    done = subprocess.run([BINARY, "--output", "json", *args], cwd=folder, capture_output=True, text=True, timeout=60)
    told = json.loads(done.stderr)
    assert done.returncode == told["exit_code"] != 0 and told["error"], done
    return told


@pytest.mark.parametrize("args", ["client show nobody", "config check --config none.toml", "contract show none",
                                  "audit show none", "certs show none.pem", "profile show none",
                                  "change list --remote https://127.0.0.1:1 --ca pki/ca.pem --certificate pki/chief.pem"])
def test_an_error_is_json_for_a_script(stage, args):
    json_error(stage.folder, *args.split())


@pytest.mark.parametrize("args", ["client list --unknown", "client add", "no-such-command", "grant list --ends-within soon"])
def test_wrong_usage_is_json_for_a_script(tmp_path, args):
    assert json_error(tmp_path, *args.split())["exit_code"] == 2


@pytest.mark.parametrize("command", ["contract list", "contract openapi", "help", "completions bash"])
def test_a_reader_that_ends_early_is_no_error(tmp_path, command):
    reader, writer = os.pipe()
    process = subprocess.Popen([BINARY, *command.split()], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    os.close(reader)
    told = process.communicate(timeout=60)[1]
    assert (process.returncode, told) == (0, ""), told
