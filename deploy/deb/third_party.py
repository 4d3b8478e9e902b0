#!/usr/bin/env python3
"""The licences and notices of the crates that the gateway has built in, from cargo's own copies of them.

Usage: third_party.py ROOT > third-party.txt"""
import json
import pathlib
import subprocess
import sys

NOTICES = ("license", "licence", "copying", "notice", "copyright", "unlicense")


def built_in(metadata):
    """The packages reached from the gateway by ordinary dependencies: not what only builds or tests use."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, open_ = set(), [metadata["resolve"]["root"]]
    while open_:
        one = open_.pop()
        if one in found:
            continue
        found.add(one)
        for dependency in nodes[one]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                open_.append(dependency["pkg"])
    return found - {metadata["resolve"]["root"]}


def main():
    host = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    host = next(line.removeprefix("host: ") for line in host.splitlines() if line.startswith("host: "))
    metadata = json.loads(subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", host,
         "--manifest-path", str(pathlib.Path(sys.argv[1]) / "Cargo.toml")], capture_output=True, check=True).stdout)
    wanted, texts = built_in(metadata), {}
    print("Crates built into ndxp-gateway: name, version, licence. The notices that they carry follow.\n")
    for package in sorted((one for one in metadata["packages"] if one["id"] in wanted), key=lambda one: one["name"]):
        name = f"{package['name']} {package['version']}"
        print(f"{name}  {package['license'] or package['license_file']}")
        folder = pathlib.Path(package["manifest_path"]).parent
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name.lower().startswith(NOTICES):
                text = file.read_text(errors="replace").strip()
                # The licence's own text is on every Debian system (copyright).
                if text and "apache license" not in text.lower()[:400]:
                    texts.setdefault(text, []).append(f"{name}: {file.name}")
    for text, files in texts.items():
        print("\n" + "-" * 80 + "\n" + "\n".join(files) + "\n\n" + text)


if __name__ == "__main__":
    main()
