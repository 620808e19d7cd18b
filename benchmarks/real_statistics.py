"""Curves of real frames for nbs/11a_statistics: python benchmarks/real_statistics.py NAME=FOLDER [NAME=FOLDER ...]

Replaces the real sources in nbs/real_statistics.json; of each folder (and the img/ folders below it) every tenth frame counts.
"""
import json
import sys
from pathlib import Path

from tirnas.data.frames import IMAGE_SUFFIXES, read_frame
from tirnas.data.statistics import frame_statistics, mean_statistics

STORE = Path(__file__).parents[1] / "nbs" / "real_statistics.json"


def curves(folder: str) -> dict[str, list[float]]:
    "The mean curves of the frames below a folder."
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)[::10]
    if not files: sys.exit(f"{folder} holds no images: give a folder of frames")
    found = mean_statistics(frame_statistics(read_frame(path)) for path in files)
    return {name: [round(float(v), 5) for v in curve] for name, curve in found._asdict().items()}


if __name__ == "__main__":
    sources = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    if len(sources) < 2: sys.exit(__doc__)
    stored = json.loads(STORE.read_text())
    STORE.write_text(json.dumps(stored | {"real": {name: curves(folder) for name, folder in sources.items()}}, indent=1) + "\n")
