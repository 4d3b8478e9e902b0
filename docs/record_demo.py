"""Runs `demo` in a terminal, and draws what it printed as an SVG whose screen scrolls: docs/record-demo.sh."""
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

COLUMNS, ROWS = 100, 36
# Seconds: on the first screen, a row further while it scrolls, on the last screen.
FIRST, EACH, LAST = 4, 0.2, 8


def run(binary):
    """What the program prints on a terminal, without the warnings of the machine that it runs on."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NDXP_")}
    clean |= {"TERM": "xterm-256color", "NDXP_LOG": "error"}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([os.path.abspath(binary), "demo"], cwd=folder, env=clean, stdin=theirs, stdout=theirs,
                                   stderr=theirs)
        os.close(theirs)
        printed = b""
        try:
            while part := os.read(ours, 65536):
                printed += part
        except OSError:  # The terminal's other end is closed: the program has ended.
            pass
        if process.wait() != 0:
            sys.exit(printed.decode())
    return printed.decode().replace("\r\n", "\n").rstrip("\n")


def drawn(printed):
    """The SVG of all rows, as rich draws a terminal."""
    screen = Text.from_ansi("$ ndxp-gateway demo\n" + printed)
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    console.print(screen, soft_wrap=False, overflow="fold", no_wrap=False)
    return console.export_svg(title="ndxp-gateway demo", theme=MONOKAI, unique_id="demo", font_aspect_ratio=0.61)


def scrolling(svg):
    """The same, with a window of so many rows, through which the rows move."""
    # No font is fetched, and each row is clipped by the window alone.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)
    svg = re.sub(r'<clipPath id="demo-line-\d+">.*?</clipPath>', "", svg, flags=re.S)
    svg = re.sub(r' clip-path="url\(#demo-line-\d+\)"', "", svg).replace("Fira Code, monospace", "monospace")
    tops = [float(y) for y in re.findall(r'<text class="demo-r\d+" x="0" y="([\d.]+)"', svg)]
    height, rows = tops[1] - tops[0], len(set(tops))
    cut = round((rows - ROWS) * height, 1)
    for whole in re.findall(r'viewBox="0 0 [\d.]+ ([\d.]+)"', svg):
        svg = svg.replace(f' {whole}"', f' {float(whole) - cut:.1f}"', 1)
    svg = re.sub(r'height="([\d.]+)" rx="8"', lambda found: f'height="{float(found[1]) - cut:.1f}" rx="8"', svg)
    svg = re.sub(r'(<clipPath id="demo-clip-terminal">\s*<rect[^>]*height=")[\d.]+', rf"\g<1>{ROWS * height:.1f}", svg)
    total = FIRST + (rows - ROWS) * EACH + LAST
    start, end = 100 * FIRST / total, 100 * (total - LAST) / total
    motion = (f".demo-matrix {{ animation: scroll {total:.1f}s infinite; }}\n"
              f"@keyframes scroll {{ 0%, {start:.2f}% {{ transform: translateY(0); animation-timing-function: "
              f"steps({rows - ROWS}); }} {end:.2f}%, 100% {{ transform: translateY(-{cut}px); }} }}\n"
              "@media (prefers-reduced-motion: reduce) { .demo-matrix { animation: none; } }\n")
    return re.sub(r"\n\s*\n", "\n", svg.replace("</style>", motion + "</style>", 1))


if __name__ == "__main__":
    with open(sys.argv[2], "w") as file:
        file.write(scrolling(drawn(run(sys.argv[1]))))
