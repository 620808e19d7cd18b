"""How large an installation is: wheel, source archive, models and graphs, and the packages with and without torch.

    python benchmarks/size.py

Packages are those of the environment that runs this, each with everything it needs; a build of torch for a GPU is several times
as large as one for the CPU alone. Archives are built from what git tracks, in a temporary folder. A MB is 10^6 bytes.
"""
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def without_torch() -> list[str]:
    "The packages that nbs/68_engine.ipynb names for tracking and scoring where torch is not to be installed."
    lists = re.findall(r"^ *\"    pip install ([a-z][a-z -]+[a-z])", (ROOT / "nbs/68_engine.ipynb").read_text(), re.M)
    return [name for names in lists for name in names.split()]


def needed_by(names: list[str]) -> dict[str, importlib.metadata.Distribution]:
    "The installed packages of these names and all that they need in turn, without extras, by canonical name."
    found, open_names = {}, list(names)
    while open_names:
        name = canonicalize_name(open_names.pop())
        if name in found: continue
        found[name] = importlib.metadata.distribution(name)
        asked = map(Requirement, found[name].requires or [])
        open_names += [r.name for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def base_packages() -> list[str]:
    "What `pip install tirnas` asks for."
    asked = map(Requirement, importlib.metadata.requires("tirnas") or [])
    return [r.name for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})]


def total(paths) -> int:
    "Bytes of those of the files that are there."
    return sum(path.stat().st_size for path in {Path(p).resolve() for p in paths} if path.is_file())


def size_of(packages: dict[str, importlib.metadata.Distribution]) -> int:
    "Bytes of all files that the packages brought."
    return total(found.locate_file(file) for found in packages.values() for file in found.files or [])


def archives(folder: str) -> dict[str, int]:
    "Bytes of the wheel and the source archive of what git tracks, built in a folder."
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True).stdout.splitlines()
    for name in filter(lambda name: (ROOT / name).is_file(), listed):
        place = Path(folder, "source", name)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", f"{folder}/dist", f"{folder}/source"]
    subprocess.run(build, capture_output=True, check=True)
    return {"wheel" if path.suffix == ".whl" else "source archive": path.stat().st_size for path in sorted(Path(folder, "dist").iterdir())}


def main() -> None:
    "Print a line for each part."
    with tempfile.TemporaryDirectory() as folder: rows = archives(folder)
    models = ROOT / "tirnas/models"
    for path in sorted(models.glob("*.safetensors")): rows[f"model {path.stem}"] = total([path])
    for path in sorted(models.glob("onnx/*")): rows[f"graphs {path.name}"] = total(path.iterdir())
    torch = importlib.metadata.version("torch")
    for what, names in (("packages without torch", without_torch()), (f"packages of `pip install tirnas`, torch {torch}", base_packages())):
        packages = needed_by(names)
        rows[f"{what} ({len(packages)})"] = size_of(packages)
    for what, size in rows.items(): print(f"{what:<60} {size / 1e6:8.1f} MB")


if __name__ == "__main__": main()
