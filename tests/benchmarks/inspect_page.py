"""How quickly the Inspect Picks page answers: python tests/benchmarks/inspect_page.py PROJECT.zarr [...]

Serves each project in a process of its own, opens it in Chromium and measures in the browser: from navigation to the
first usable paint (thresholds that can be moved, counts, three micrographs with their picks) and to the plots, and from
the move of a threshold to the painted update of counts, plots and all three micrographs, median of 30 moves. The
server's largest resident memory is read from the system. Projects of any size are made by
tests/benchmarks/many_picks.py.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVE = "import sys; from pickcal.cli import main; main(['inspect', sys.argv[1], '--no-show', '--read-only'])"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]

DRAWN = """
const all = (selector, root = document, found = []) => {
  for (const element of root.querySelectorAll("*")) {
    if (element.matches(selector)) found.push(element)
    if (element.shadowRoot) all(selector, element.shadowRoot, found)
  }
  return found
}
const versions = () => all("[data-painted]").map((element) => Number(element.dataset.painted))
"""

USABLE = f"""() => {{ {DRAWN}
  const counts = all(".counts")
  if (!all("[data-threshold] input[type=range]").some((range) => !range.disabled)) return false
  const plates = all(".plate[data-painted]").filter((plate) => plate.drawn && plate.drawn.accepted > 0)
  return counts.length > 0 && /[1-9].* picks accepted/.test(counts[0].textContent) && plates.length >= 3
}}"""

PLOTS = f"""() => {{ {DRAWN}
  return all(".bk-Figure[data-painted]").length >= 2
}}"""

BINNED = f"""() => {{ {DRAWN}
  const text = all(".counts")[0].textContent
  return !/sample|0 % binned/.test(text) && all("[data-threshold] input[type=range]").length > 0
}}"""

MOVE = f"""(up) => new Promise((resolve) => {{ {DRAWN}
  const range = all("[data-threshold] input[type=range]")[0]
  const before = Math.max(...versions())
  const parts = all("[data-painted]")
  const began = performance.now()
  range.focus()
  range.value = Number(range.value) + (up ? 1 : -1)
  range.dispatchEvent(new Event("input", {{ bubbles: true }}))
  const look = () => {{
    if (parts.every((part) => Number(part.dataset.painted) > before)) {{
      // what was drawn in this frame is on the screen after it
      requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began), 0))
    }} else if (performance.now() - began > 5000) resolve(-1)
    else requestAnimationFrame(look)
  }}
  requestAnimationFrame(look)
}})"""

LET_GO = f"""() => {{ {DRAWN}
  all("[data-threshold] input[type=range]")[0].dispatchEvent(new Event("change", {{ bubbles: true }}))
}}"""


def measure(project: Path, moves: int) -> dict[str, float]:
    """Open one project and move its threshold."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-c", SERVE, str(project.absolute())]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        address = _address(server)
        with sync_playwright() as player:
            browser = player.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
            first = _open(browser, address)[1:]
            page, *again = _open(browser, address)
            page.wait_for_function(BINNED, timeout=1_800_000, polling=200)
            page.wait_for_timeout(3000)
            times = []
            for i in range(moves):
                times.append(float(page.evaluate(MOVE, i % 10 < 5)))
                page.wait_for_timeout(150)
            page.evaluate(LET_GO)
            browser.close()
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
        assert peak is not None
        lost = sum(value < 0 for value in times)
        good = [value for value in times if value >= 0]
        return {
            "first_paint_s": first[0],
            "first_plots_s": first[1],
            "second_visitor_paint_s": again[0],
            "second_visitor_plots_s": again[1],
            "move_median_ms": statistics.median(good),
            "move_worst_ms": max(good),
            "moves_lost": lost,
            "server_peak_GB": int(peak[1]) / 2**20,
        }
    finally:
        server.terminate()
        server.wait(30)


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    for line in server.stdout:
        found = re.search(r"http://\S+", line)
        if found:
            return found[0]
    raise SystemExit("the server did not start")


def _open(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    began = time.monotonic()
    page.goto(address)
    page.wait_for_function(USABLE, timeout=600_000, polling=20)
    usable = time.monotonic() - began
    page.wait_for_function(PLOTS, timeout=600_000, polling=20)
    return page, usable, time.monotonic() - began


def main() -> None:
    """Print one line of JSON for each project."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("projects", nargs="+", type=Path)
    parser.add_argument("--moves", type=int, default=30)
    given = parser.parse_args()
    for project in given.projects:
        found = measure(project, given.moves)
        figures = {key: round(value, 3) for key, value in found.items()}
        print(json.dumps({"project": project.name, **figures}), flush=True)


if __name__ == "__main__":
    main()
