"""The lowest version of each dependency that pyproject.toml declares, as constraints for pip; torch is left free."""

import re
from pathlib import Path

text = Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8")
listed = text.partition("\ndependencies = [\n")[2].partition("\n]")[0]
for name, lowest in re.findall(r'^ *"([\w-]+)>=([\d.]+)', listed, flags=re.MULTILINE):
    print(f"# {name}>={lowest}" if name == "torch" else f"{name}=={lowest}")
