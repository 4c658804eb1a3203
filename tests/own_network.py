"""The example of docs/own_network.md, installed."""

import re
import tomllib
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "own_network.md"


def install_example(folder: Path) -> None:
    """Write the example's module and what pip records of its package; they count once `folder` is on sys.path."""
    blocks = dict(re.findall(r"^```(python|toml)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S))
    project = tomllib.loads(blocks["toml"])["project"]
    records = folder / f"my_networks-{project['version']}.dist-info"
    records.mkdir(parents=True)
    (folder / "my_networks.py").write_text(blocks["python"], encoding="utf-8")
    (records / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8")
    points = [f"{name} = {value}\n" for name, value in project["entry-points"]["hngtv.networks"].items()]
    (records / "entry_points.txt").write_text("[hngtv.networks]\n" + "".join(points), encoding="utf-8")
