"""A page in a real browser: nothing cut, nothing over another thing, readable by those who do not see it.

    python experiments/benchmarks/page.py runs/a/report.html [--out FOLDER] [--axe axe.min.js]

Chromium shows it 420 and 1400 px wide, light, dark and grey, and as it is printed. Each is measured: the page itself
does not scroll sideways, no block stands over another, no text is wider than what holds it without a way to scroll
there. `--axe` takes the script of the package `axe-core`; violations that it calls serious or critical are printed.
`--out` keeps the pictures. Exits with 1 where something is found.
"""

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

LOOKS = {
    "grey": {"features": [{"name": "prefers-color-scheme", "value": "light"}]},
    "light": {"features": [{"name": "prefers-color-scheme", "value": "light"}]},
    "dark": {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    "print": {"media": "print"},
}
VIEWS = [(width, name) for width in (420, 1400) for name in ("light", "dark", "grey")] + [(720, "print")]  # A4
HIGHEST = 16_000  # pixels of a picture
MEASURED = """(() => {
  const found = [], root = document.scrollingElement;
  if (root.scrollWidth > root.clientWidth) found.push(`the page is ${root.scrollWidth} px wide`);
  const name = each => `${each.tagName} ${each.closest('section')?.id || ''} ${each.innerText?.slice(0, 40) || ''}`;
  for (const each of document.querySelectorAll('h1, h2, h3, p, li, dt, dd, summary, figcaption, caption, th, td')) {
    const box = each.getBoundingClientRect(), inside = each.closest('.scroll');
    if (!box.width) continue;
    if (each.scrollWidth > each.clientWidth + 1 && each.clientWidth) found.push(`cut: ${name(each)}`);
    if (!inside && (box.left < -1 || box.right > root.clientWidth + 1)) found.push(`outside: ${name(each)}`);
  }
  const apart = (first, second) => first.bottom <= second.top + 1 || second.bottom <= first.top + 1
    || first.right <= second.left + 1 || second.right <= first.left + 1;
  for (const parent of document.querySelectorAll('body, main, section, dl, ul, figure, tr')) {
    const boxes = [...parent.children].map(each => [each, each.getBoundingClientRect()]).filter(([, b]) => b.height);
    boxes.forEach(([each, box], index) => boxes.slice(index + 1).forEach(([other, second]) => {
      if (!apart(box, second)) found.push(`over each other: ${name(each)} and ${name(other)}`);
    }));
  }
  for (const image of document.images) if (!image.naturalWidth) found.push(`not drawn: ${image.alt}`);
  return found;
})()"""


class Browser:
    """Chromium without a window, spoken to over two pipes by its own protocol."""

    def __init__(self, program: str, folder: str) -> None:
        (to_read, self.output), (self.input, to_write) = os.pipe(), os.pipe()
        self.ids, self.pending = count(1), b""
        command = [program, "--headless=new", "--no-sandbox", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "sh", *command],
            pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for pipe in (to_read, to_write):
            os.close(pipe)
        self.session: dict[str, str] = {}
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def ask(self, method: str, **values: Any) -> dict[str, Any]:
        """What it answers to a call."""
        number = next(self.ids)
        message = {"id": number, "method": method, "params": values, **self.session}
        content = json.dumps(message).encode() + b"\0"
        while content:
            content = content[os.write(self.output, content) :]
        while (answer := self.next()).get("id") != number:
            pass
        if "error" in answer:
            raise SystemExit(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def next(self) -> dict[str, Any]:
        """The next message."""
        while b"\0" not in self.pending:
            self.pending += os.read(self.input, 1 << 20) or sys.exit("the browser has ended")
        message, _, self.pending = self.pending.partition(b"\0")
        return json.loads(message)

    def value(self, script: str) -> Any:
        """What a script gives, once it has it."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise SystemExit(found["exceptionDetails"]["exception"]["description"])
        return found["result"].get("value")

    def show(self, page: Path) -> None:
        """Open a page with all that is folded, and wait until all of it is there."""
        self.ask("Page.enable")
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while self.next().get("method") != "Page.loadEventFired":
            pass
        self.value("document.querySelectorAll('details').forEach(each => { each.open = true })")
        self.value("Promise.all([...document.images].map(image => image.decode().catch(() => 0)))")

    def picture(self) -> bytes:
        """All of the page, as PNG."""
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


def look(browser: Browser, page: Path, out: Path | None, axe: str) -> list[str]:
    """What is wrong with a page, each with the look in which it is."""
    found = []
    for width, name in VIEWS:
        browser.ask("Emulation.setEmulatedMedia", **{"media": "", "features": [], **LOOKS[name]})
        kind = "achromatopsia" if name == "grey" else "none"
        browser.ask("Emulation.setEmulatedVisionDeficiency", type=kind)
        size: dict[str, Any] = {"width": width, "deviceScaleFactor": 1, "mobile": False}
        browser.ask("Emulation.setDeviceMetricsOverride", height=900, **size)
        browser.show(page)
        where = f"{width} px, {name}"
        found += [f"{where}: {each}" for each in browser.value(MEASURED)]
        if axe and name in ("light", "dark"):
            browser.value(axe + "\n;0")
            said = browser.value("axe.run().then(found => found.violations)")
            for each in said:
                serious = each["impact"] in ("serious", "critical")
                places = ", ".join(node["target"][0] for node in each["nodes"][:3])
                line = f"{where}: axe, {each['impact']}: {each['help']} ({len(each['nodes'])} times: {places})"
                found.append(line) if serious else print(f"note: {line}")
        if out is not None:
            height = min(HIGHEST, browser.value("document.documentElement.scrollHeight"))
            browser.ask("Emulation.setDeviceMetricsOverride", height=height, **size)
            (out / f"{page.stem}-{width}-{name}.png").write_bytes(browser.picture())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--axe", type=Path)
    asked = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("no browser is here: chromium or google-chrome should be found on the PATH.")
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(program, folder)
        try:
            version = browser.value("navigator.userAgent").rpartition("Chrome/")[2].split()[0]
            found = look(browser, asked.page, asked.out, asked.axe.read_text() if asked.axe else "")
        finally:
            browser.close()
    print(f"Chromium {version}, {asked.page}: {len(found)} findings", *found, sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
