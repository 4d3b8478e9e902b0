"""The commands of the guide as they stand: its indented blocks, and the commands within its sentences."""
import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What a command within a sentence begins with.
PROGRAMS = re.compile(r"(?:[A-Z_]+=\S+ )?(?:etcdctl|etcdutl|systemctl|apt|ndxp-gateway|runuser|rm|openssl|tar) \S")


class Block:
    """A block, or a command of a sentence."""

    def __init__(self, section, text):
        self.section, self.text = section, text

    def commands(self):
        """Its commands, without comments; one may have several lines."""
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        return [line for line in (re.sub(r"\s+# .*", "", line).rstrip() for line in lines) if line]

    def toml(self):
        return tomllib.loads(self.text)


def blocks(path):
    """The blocks of a page, each with its section."""
    section, lines, found, before = "", [], [], ""
    for line in [*(ROOT / path).read_text().splitlines(), "end"]:
        if re.match(r" {4}", line) and (lines or not before.strip()):
            lines.append(line)
        elif lines and not line.strip():
            lines.append("")
        elif lines:
            text = "\n".join(lines).rstrip("\n")
            indent = min(len(one) - len(one.lstrip()) for one in text.splitlines() if one)
            found.append(Block(section, "\n".join(one[indent:] for one in text.splitlines())))
            lines = []
        if line.startswith("#"):
            section = line.lstrip("# ")
        elif not re.match(r" {4}", line):
            found += [Block(section, quoted) for quoted in re.findall(r"`([^`]+)`", line) if PROGRAMS.match(quoted)]
        before = line
    return found


class Guide:
    """The blocks by the names of a table; the guide has no other block, and the table no other row."""

    def __init__(self, table):
        self.named, self.taken = {}, set()
        rest = [block for page in sorted({page for page, _, _ in table.values()}) for block in self.of(page, table)]
        for name, (_, section, begin) in table.items():
            fitting = [block for block in rest if block.section == section and block.text.startswith(begin)]
            if len(fitting) != 1:
                raise AssertionError(f"{section}: {len(fitting)} blocks begin with {begin!r}, not one ({name})")
            self.named[name] = fitting[0]
            rest.remove(fitting[0])
        if rest:
            unknown = "\n".join(f"{block.section}:\n{block.text}" for block in rest)
            raise AssertionError(f"the test does not know what to do with these commands of the guide:\n{unknown}")

    @staticmethod
    def of(page, table):
        """All of the first page; of another one, the sections that the table names."""
        sections = {section for other, section, _ in table.values() if other == page}
        return [block for block in blocks(page) if page == "docs/cluster.md" or block.section in sections]

    def __getitem__(self, name):
        self.taken.add(name)
        return self.named[name]

    def whole(self):
        """Every block was used."""
        missing = set(self.named) - self.taken
        assert not missing, f"never run: {missing}"
