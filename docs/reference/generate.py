"""Writes cli.md, metrics.md and gateway.schema.json: docs/reference/generate.sh."""
import pathlib
import re
import subprocess
import sys

GENERATED = "This page is written by `docs/reference/generate.sh`; a test compares it with the program."
KINDS = ["Counter", "Gauge", "Histogram", "Info"]
# Options of every command: once at the top of the page.
EVERYWHERE = re.compile(r"^ +(-h, |-V, )?--(output|wide|help|version)\b")


def help_of(binary, words):
    """A command's help, 100 columns wide, whatever terminal and environment this runs in."""
    clean = {"COLUMNS": "100", "PATH": "/usr/bin:/bin"}
    command = [binary, *words, "--help"]
    done = subprocess.run(command, env=clean, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip().split("\n"))


def subcommands(page):
    """The commands that a help page lists."""
    part = re.search(r"^Commands:\n(.*?)(?:\n\n|\Z)", page, re.M | re.S)
    found = re.findall(r"^  ([a-z0-9-]+)(?:  |$)", part[1], re.M) if part else []
    return [name for name in found if name != "help"]


def without_common(page):
    """The page without the options of every command."""
    kept, skipped = [], False
    for line in page.split("\n"):
        if EVERYWHERE.match(line):
            skipped = True
        elif re.match(r"^ {2,6}-|^\S", line):
            skipped = False
        if not skipped:
            kept.append(line)
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
    # Headings with nothing left under them.
    return re.sub(r"^(Options|Global options):\n*(?=^\S|\Z)", "", text, flags=re.M).strip()


def command_line(binary):
    program = pathlib.Path(binary).name

    def sections(words, page):
        for name in subcommands(page):
            below = help_of(binary, [*words, name])
            level = "###" if words else "##"
            yield f"{level} {program} {' '.join([*words, name])}\n```text\n{without_common(below)}\n```\n"
            yield from sections([*words, name], below)

    top = help_of(binary, [])
    intro = (f"# Command line\n{GENERATED}\n`{program} help COMMAND` prints the same, `{program} man FOLDER` writes "
             "manual pages. The options `--output`, `--wide`,\n`--help` and `--version` belong to every command: they "
             "are listed here only.\n")
    return f"{intro}\n```text\n{top}\n```\n\n" + "\n".join(sections([], top))


class Declarations:
    """The metrics as src/telemetry declares them: a gateway shows a family only once it has a series."""

    def __init__(self, root):
        files = sorted((root / "src/telemetry").rglob("*.rs")) + [root / "src/shares.rs"]
        self.texts = {file: file.read_text() for file in files if file.name != "tests.rs"}
        everything = "\n".join(self.texts.values())
        self.structs = dict(re.findall(r"struct (\w+)(?: \{\n(.*?)\n\})", everything, re.S))
        self.structs |= dict(re.findall(r"struct (\w+)(\(.*\));", everything))
        self.aliases = dict(re.findall(r"type (\w+) = (Family<.*?>);", everything))

    def kind(self, before, handle):
        """The labels and the type of a handle, by the declaration of its variable or of its struct's field."""
        owner, _, name = handle.rpartition(".")
        if owner:
            made = r"impl (\w+) \{" if owner == "self" else rf"let {owner} = (\w+)(?:::default\(\)| \{{)"
            before = self.structs[re.findall(made, before)[-1]]
        kinds = "|".join([*KINDS, *self.aliases])
        declared = re.compile(rf"\b{name}\b.*?(?:: | = \(?)(Family(?:::)?<\w+, \w+|{kinds})\b")
        found = re.compile(r"(Family<\w+, \w+)").findall(before) if name == "0" else declared.findall(before)
        assert found, f"{handle} is declared in another way"
        family = re.match(r"Family(?:::)?<(\w+), (\w+)", self.aliases.get(found[-1], found[-1]))
        if found[-1] == "Info":
            return re.findall(r'Info::new\(\[\("(\w+)"', before)[-1:], "info"
        labels = re.findall(r"(\w+): ", re.sub(r"///.*", "", self.structs[family[1]])) if family else []
        return labels, (family[2] if family else found[-1]).lower()

    def all(self):
        for file, text in self.texts.items():
            # What follows #[cfg(test)] registers nothing.
            text = text.split("#[cfg(test)]\nmod tests {")[0]
            call = re.compile(r'registry\.register\(\s*"(\w+)",\s*(?:"((?:[^"\\]|\\.)*)"|help),\s*([\w.()]+?),?\s*\);')
            calls = list(call.finditer(text))
            assert len(calls) == text.count("registry.register("), f"{file}: a declaration is not understood"
            for found in calls:
                name, said, handle = found.groups()
                said = said or re.findall(r'let help =\s*"((?:[^"\\]|\\.)*)";', text[:found.start()])[-1]
                labels, kind = self.kind(text[:found.start()], handle.removesuffix(".clone()"))
                yield f"ndxp_{name}", kind, labels, re.sub(r"\\\n\s*", "", said)


def metrics(root):
    rows = sorted(Declarations(root).all())
    suffix = {"counter": "`_total`", "histogram": "`_bucket`, `_sum`, `_count`", "info": "`_info`", "gauge": ""}
    lines = [f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {said}. |"
             for name, kind, labels, said in rows]
    behind = "; ".join(f"{kind}: {text}" for kind, text in suffix.items() if text)
    return (f"# Metrics\n{GENERATED}\nA gateway has them at `/metrics` of `listen.operator_http`, each family as soon "
            f"as it has a series. Behind the name in\nPrometheus: {behind}.\nWhich of them to watch, and what to do: "
            "[operation](../operation.md#what-to-watch).\n\n"
            "| metric | type | labels | |\n| --- | --- | --- | --- |\n" + "\n".join(lines) + "\n")


def main(binary, folder):
    folder = pathlib.Path(folder)
    (folder / "cli.md").write_text(command_line(str(pathlib.Path(binary).resolve())))
    schema = subprocess.run([binary, "config", "schema"], capture_output=True, text=True, check=True)
    (folder / "gateway.schema.json").write_text(schema.stdout)
    (folder / "metrics.md").write_text(metrics(pathlib.Path(__file__).resolve().parents[2]))


if __name__ == "__main__":
    main(*sys.argv[1:])
