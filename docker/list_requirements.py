"""Print what pyproject.toml requires, and the extras that are named: for an image layer of their own."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text(encoding="utf-8"))["project"]
for extra in sys.argv[1:]:
    project["dependencies"] += project["optional-dependencies"][extra]
print("\n".join(project["dependencies"]))
