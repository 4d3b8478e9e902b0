"""The generated reference (docs/reference) is that of the program: its help, and the metrics that it declares and shows."""
import html
import json
import re
import subprocess
import urllib.request

import pytest
from conftest import BINARY, ROOT

REFERENCE = ROOT / "docs/reference"


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    subprocess.run([REFERENCE / "generate.sh", BINARY, folder], check=True, timeout=120)
    return folder


@pytest.mark.parametrize("page", ["cli.md", "metrics.md", "gateway.schema.json"])
def test_a_page_is_what_the_program_says(regenerated, page):
    assert (regenerated / page).read_text() == (REFERENCE / page).read_text(), "run docs/reference/generate.sh"


def test_every_command_has_its_section():
    """Completions are made by other code than the help: every command that they offer has a section."""
    script = subprocess.run([BINARY, "completions", "bash"], capture_output=True, text=True, check=True).stdout
    offered = {name.replace("__subcmd__", "__") for name in re.findall(r'cmd="(ndxp__gateway\w*)"', script)}
    offered = {name for name in offered if "help" not in name.split("__")}
    page = (REFERENCE / "cli.md").read_text()
    sections = re.findall(r"^##+ ndxp-gateway (.*)$", page, re.M)
    named = {"__".join(["ndxp__gateway", *words.split()]).replace("-", "__") for words in sections}
    assert len(sections) > 60 and named == offered - {"ndxp__gateway"}, named ^ offered


def families(page):
    """The families of a page of metrics: type, labels and help by name."""
    found = {}
    for name, said in re.findall(r"^# HELP (\w+) (.*)\.$", page, re.M):
        kind = re.search(rf"^# TYPE {name} (\w+)$", page, re.M)[1]
        series = re.findall(rf"^{name}(?:_total|_info|_bucket|_sum|_count)?(?:\{{(.*)\}})? \S+$", page, re.M)
        assert series, f"{name} has no series"
        found[name] = (kind, {label for one in series for label in re.findall(r'(\w+)="', one)} - {"le"}, said)
    return found


def test_a_running_gateway_has_the_metrics_of_the_page(stage):
    port = re.search(r'operator_http = "(.*)"', (stage.folder / "gateway.toml").read_text())[1]
    with urllib.request.urlopen(f"http://{port}/metrics", timeout=20) as response:
        shown = families(response.read().decode())
    rows = re.findall(r"^\| `(ndxp_\w+)` \| (\w+) \| (.*?) \| (.*)\. \|$", (REFERENCE / "metrics.md").read_text(), re.M)
    page = {name: (kind, set(re.findall(r"`(\w+)`", labels)), said) for name, kind, labels, said in rows}
    assert len(shown) > 40
    assert {name: page.get(name) for name in shown} == shown


def test_the_picture_of_the_demo_is_of_this_program():
    """`docs/record-demo.sh` draws it: every operation is there, and the closing line says that all went well."""
    listed = subprocess.run([BINARY, "--output", "json", "contract", "list"], capture_output=True, text=True, check=True)
    operations = {one["operation"] for one in json.loads(listed.stdout)}
    picture = html.unescape((ROOT / "docs/demo.svg").read_text()).replace("\xa0", " ")
    assert len(operations) > 40 and len(picture) < 150_000
    rows = re.findall(r"│ \w+ +┆ (\w+) +┆ [\w. -]+ +┆ OK, ", picture)
    assert set(rows) == {name.rpartition("/")[2] for name in operations}, "run docs/record-demo.sh"
    assert f"{len(rows)} operations of 10 sources" in picture and "everything as it should be" in picture.replace("\n", " ")
