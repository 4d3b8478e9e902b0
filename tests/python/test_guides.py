"""The guides by role (docs/guides): every command, page, label and name in them exists, and both languages have the same."""
import re
import shlex
import subprocess

import pytest

from conftest import BINARY, ROOT

GUIDES = ROOT / "docs/guides"
ROLES = ["developer", "administrator", "auditor", "operator"]
LOCALES = ["en", "vi"]
EACH = [(role, locale) for role in ROLES for locale in LOCALES]
# How a guide begins what it says of the console, by language.
CONSOLE = {"en": "- **Console**:", "vi": "- **Giao diện web**:"}


def guide(role, locale):
    return (GUIDES / f"{role}.{locale}.md").read_text()


def blocks(text):
    """The lines of indented blocks of code, each block as one text."""
    return re.findall(r"(?:^ {4,}\S.*\n)+", text, re.M)


def prose(text):
    return re.sub(r"^ {4,}\S.*\n", "", text, flags=re.M)


def in_block(block):
    """The commands of a block, each as its words. A command may continue on the next lines: after a backslash, or in quotes."""
    lines = ""
    for line in block.splitlines():
        lines += line.strip() if not lines else "\n" + line.strip()
        try:
            words = None if lines.endswith("\\") else shlex.split(lines.replace("\\\n", " "))
        except ValueError:
            words = None
        if words is not None:
            yield words
            lines = ""
    assert not lines, f"does not end: {lines}"


def inline(text, commands):
    """The commands between backquotes: with the program's name or without it, if they are more than one word."""
    for quote in re.findall(r"`([^`]+)`", prose(text)):
        first, _, rest = quote.replace("\n", " ").partition(" ")
        if first == "ndxp-gateway":
            yield shlex.split(quote)
        elif first in commands and rest and "…" not in rest:
            yield ["ndxp-gateway", *shlex.split(quote)]


def of_program(words):
    """The words of a command up to a pipe or a redirection, if it is one of the program, also as the service's user."""
    words = words[4:] if words[:4] == ["runuser", "-u", "ndxp", "--"] else words
    end = next((at for at, word in enumerate(words) if word in ("|", ">", "&")), len(words))
    return words[1:end] if words[0] == "ndxp-gateway" else None


def commands(text):
    found = [of_program(words) for block in blocks(text) for words in in_block(block)]
    found = [words for words in found if words is not None]
    assert len(found) == sum(block.count("ndxp-gateway ") for block in blocks(text)), "a command does not begin its line"
    return found


def parsed(words):
    """Lets the program parse a command: `--help` at its end runs nothing, but comes after everything else was accepted."""
    return subprocess.run([BINARY, *words, "--help"], capture_output=True, text=True, timeout=60)


def missing(words, page):
    """The flags and arguments that the usage line of a command's help requires, and the command lacks."""
    usage = re.search(r"^Usage: ndxp-gateway (.*(?:\n {8,}\S.*)*)$", page, re.M)[1]
    # What is optional, and alternatives: `[OPTIONS]`, `<ID|--client <CLIENT>>`.
    usage = re.sub(r"\[.*?\]|<[^<>]*\|[^<>]*<[^<>]*>>", "", usage)
    lacking = [flag for flag in re.findall(r"(--[\w-]+) <", usage) if flag not in words]
    # The guides set these by `export`.
    lacking = [flag for flag in lacking if not re.search(rf"{flag} <.*(?:\n {{8,}}.*|\n)*? +\[env: NDXP_", page)]
    usage = re.sub(r"--[\w-]+ <[^>]*>", "", usage)
    with_value = {flag for flags in re.findall(r"(-\w)?(?:, )?(--[\w-]+) <", page) for flag in flags if flag}
    given = [word for before, word in zip(["", *words], words) if not word.startswith("-") and before not in with_value]
    arguments = usage.count("<") - (len(given) - len(re.findall(r"\b[a-z][a-z-]*", usage)))
    return lacking + ["an argument"] * max(arguments, 0)


def fault(words):
    done = parsed(words)
    if done.returncode:
        return done.stderr
    lacking = missing(words, done.stdout)
    return f"{' '.join(words)}: lacks {lacking}" if lacking else None


def top_level():
    page = subprocess.run([BINARY, "--help"], capture_output=True, text=True, timeout=60).stdout
    return set(re.findall(r"^  ([a-z]+)  ", page, re.M)) - {"help"}


def routes():
    """The console's pages, by the router itself: patterns of those that can be opened."""
    source = (ROOT / "src/console/mod.rs").read_text()
    found = re.findall(r'\.route\("([^"]+)", (?:get\(|any\()', source)
    found = [path for path in found if "*" not in path]
    assert len(found) > 25
    return [re.compile(re.sub(r"\\?\{\w+\\?\}", "[^/]+", re.escape(path))) for path in found]


def texts(locale):
    """The console's texts in a language, by key."""
    files = (ROOT / "src/console/locales" / locale).glob("*.ftl")
    return dict(re.findall(r"^([\w-]+) = (.*)$", "\n".join(file.read_text() for file in files), re.M))


def menu(locale):
    found = re.findall(r'\("(/console/[\w-]*)", "(menu-[\w-]+)"', (ROOT / "src/console/layout.rs").read_text())
    assert len(found) > 15
    return {path: texts(locale)[key] for path, key in found}


def paths(text):
    return re.findall(r"/console/[\w/-]*", text)


def console_items(text, locale):
    """What a guide says of the console: each list item, without its line breaks."""
    return [re.sub(r"\s+", " ", item) for item in re.findall(rf"^{re.escape(CONSOLE[locale])}.*\n(?:  \S.*\n)*", text, re.M)]


@pytest.mark.parametrize("role,locale", EACH)
def test_every_command_is_one_of_the_program(role, locale):
    text = guide(role, locale)
    found = commands(text)
    assert len(found) >= 10
    faults = [fault(words) for words in found]
    # Commands in a sentence are names: they may lack their arguments.
    faults += [done.stderr for words in inline(text, top_level()) if (done := parsed(words[1:])).returncode]
    assert not any(faults), "\n".join(filter(None, faults))


@pytest.mark.parametrize("role,locale", EACH)
def test_every_page_and_label_is_one_of_the_console(role, locale):
    text, known, entries, labels = guide(role, locale), routes(), menu(locale), set(texts(locale).values())
    named = paths(text)
    assert named and not [path for path in named if not any(route.fullmatch(path) for route in known)]
    items = console_items(text, locale)
    assert len(items) >= (2 if role == "developer" else 6)
    for item in items:
        for name, path in re.findall(r"\*\*([^*]+)\*\* \(`(/console/[^`]*)`\)", item):
            assert entries.get(path) == name, (path, name)
        assert not [label for label in re.findall(r'"([^"]+)"', item) if label not in labels], item


@pytest.mark.parametrize("role,locale", EACH)
def test_every_reason_and_metric_is_documented(role, locale):
    statuses, operation = ((ROOT / "docs" / page).read_text() for page in ("statuses.md", "operation.md"))
    quotes = re.findall(r"`([^`]+)`", prose(guide(role, locale)))
    reasons = {quote for quote in quotes if re.fullmatch(r"[A-Z]+(?:_[A-Z]+)+", quote)}
    assert reasons and not [one for one in reasons if f" | {one} | " not in statuses]
    assert not [quote for quote in quotes if quote.startswith("ndxp_") and f"`{quote}`" not in operation]


@pytest.mark.parametrize("role,locale", EACH)
def test_every_sentence_of_the_program_is_in_its_source(role, locale):
    source = "".join(file.read_text() for file in (ROOT / "src").rglob("*.rs"))
    quotes = [re.sub(r"\s+", " ", quote) for quote in re.findall(r"`([^`]+)`", prose(guide(role, locale)))]
    sentences = [quote for quote in quotes if re.fullmatch(r"[a-z]+:?( [a-z';…]+)+", quote)]
    sentences = [one for one in sentences if one.split()[0] not in {*top_level(), "openssl", "sudo"}]
    assert not [one for one in sentences if one.removesuffix(" …") not in source]


@pytest.mark.parametrize("role", ROLES)
def test_both_languages_have_the_same(role):
    english, vietnamese = (guide(role, locale) for locale in LOCALES)
    sections = [re.split(r"^## ", text, flags=re.M) for text in (english, vietnamese)]
    assert len(sections[0]) == len(sections[1]) > 10
    for one, other in zip(*sections):
        title = one.splitlines()[0]
        assert blocks(one) == blocks(other), title
        assert commands(one) == commands(other), title
        assert paths(one) == paths(other), title
        for pattern in (r"^- \*\*", r"^\| ", r"^\d+\.", r"`[A-Z_]{4,}`"):
            assert len(re.findall(pattern, one, re.M)) == len(re.findall(pattern, other, re.M)), (title, pattern)
        links = [re.findall(r"\]\(([^)]+)\)", text) for text in (one, other)]
        other_language = {"en": "vi", "vi": "en"}
        swapped = [re.sub(r"\.(en|vi)\.md", lambda end: f".{other_language[end[1]]}.md", link) for link in links[1]]
        assert sorted(links[0]) == sorted(swapped), title


def test_the_index_has_every_guide():
    index = (GUIDES / "README.md").read_text()
    names = sorted(file.name for file in GUIDES.glob("*.*.md"))
    assert names == sorted(f"{role}.{locale}.md" for role, locale in EACH)
    assert not [name for name in names if f"]({name})" not in index]
    assert "docs/guides/README.md" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("command", [
    "audit search --clien one-stop-shop", "audit serch", "client list --state nothing", "grant add --client x --scope '*' --field '*'",
    "audit prove --out receipt.tlog-proof", "change approve", "token issue --client x", "audit show 1 2", "call --data '{}'",
])
def test_a_wrong_command_is_found(command):
    assert fault(shlex.split(command))


@pytest.mark.parametrize("command", [
    "audit search --client one-stop-shop", "change approve CHANGE-ID --profile minh", "demo --stay", "sandbox samples",
    "token revoke --client one-stop-shop", "call BudgetUnitService/GetUnit --data '{}'", "audit subject 1 2 --case 12/KN",
])
def test_a_right_command_passes(command):
    assert fault(shlex.split(command)) is None


def test_commands_are_found_over_several_lines_and_before_a_pipe():
    text = "    ndxp-gateway grant add --client x \\\n        --scope y\n    ndxp-gateway call A/B --data '{\n        }' | head\n    curl x\n"
    assert commands(text) == [["grant", "add", "--client", "x", "--scope", "y"], ["call", "A/B", "--data", "{\n}"]]
    with pytest.raises(AssertionError):
        commands("    cd x && ndxp-gateway audit status\n")


@pytest.mark.parametrize("page", ["README.md", "docs/operation.md", "docs/adding-a-source.md"])
def test_every_command_of_a_page_is_taken(page):
    """Blocks of other pages have comments, and other programs' commands: only this program's are looked at, to their comment."""
    blocks_of_page = "\n".join(blocks((ROOT / page).read_text())).replace("\\\n", " ")
    found = [line.strip() for line in blocks_of_page.splitlines() if re.match(r" +(runuser -u ndxp -- )?ndxp-gateway ", line)]
    words = [of_program(shlex.split(line, comments=True)) for line in found]
    assert len(words) > {"README.md": 30}.get(page, 0)
    assert not [wrong for wrong in map(fault, words) if wrong]
