"""The build context of a challenge container: Dockerfile, requirements, the code that runs, and the package.

The code is copied as it runs here, so that the container predicts with what was tested beside the export.
"""

import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

from hngtv.config import OwnNetworkSettings
from hngtv.errors import InputError
from hngtv.export.package import Package, copy_package
from hngtv.model import Model
from hngtv.run_folder import write_text

REQUIREMENTS = (
    "filelock", "hydra-core", "monai", "nibabel", "numpy", "omegaconf", "pydantic", "safetensors", "scipy", "SimpleITK",
    "torch", "tqdm",
)  # fmt: skip
"""What a prediction imports; training, reports and logging need more."""
DOCKERFILE = """# docker build --platform linux/amd64 --build-arg YEAR=2026 -t hngtv-challenge .
FROM python:{python}-slim
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/app
RUN useradd --create-home user
WORKDIR /opt/app
COPY requirements.txt ./
# Prediction runs on the processor: with an index of PyTorch without CUDA the image stays far below 10 GB.
ARG PIP_OPTIONS=""
RUN pip install --no-cache-dir $PIP_OPTIONS -r requirements.txt
COPY app ./
# In 2026 the platform mounts a model.tar.gz over this folder.
COPY model /opt/ml/model
USER user
ARG YEAR=2026
ARG OPTIONS=""
ENV YEAR=$YEAR OPTIONS=$OPTIONS
ENTRYPOINT ["sh", "-c", "exec python -m hngtv.commands.entry challenge year=$YEAR $OPTIONS \\
input=/input output=/output model=/opt/ml/model"]
"""
README = """# Challenge container

Segmentation for HECKTOR 2025 (task 1) and 2026 on Grand Challenge.

```
docker build --platform linux/amd64 --build-arg YEAR=2026 -t hngtv-challenge .
docker run --rm --network none --memory 16g -v INPUT:/input:ro -v OUTPUT:/output hngtv-challenge
docker save hngtv-challenge | gzip > hngtv-challenge.tar.gz     # the algorithm's image
tar -czf model.tar.gz -C model .                                # 2026: the model, uploaded by itself
```

`YEAR=2025` for task 1 of 2025. `--build-arg PIP_OPTIONS=...` is given to pip: options that make it find PyTorch for
processors keep CUDA out of the image. Without Docker:
`hngtv challenge year=2026 input=INPUT output=OUTPUT model=model`.

## Stages and risk in 2026

2026 also asks for `t-stage.json`, `n-stage.json` and `rfs.json`. This model predicts none of them, so they hold `null`,
which the platform may refuse. A constant, the same for every patient, is no prediction either; whoever needs the files
filled gives one and says so in the submission:

```
docker build --build-arg YEAR=2026 --build-arg OPTIONS="t_stage=T2 n_stage=N2 rfs=0" -t hngtv-challenge .
```
"""


def write_container(package: Package, model: Model, folder: Path) -> None:
    """Write the build context of a package into a folder made for it.

    Raises:
        InputError: The network is of a package of the user's own, which the container would lack.
    """
    if isinstance(model.settings.network, OwnNetworkSettings):
        raise InputError(
            f"formats=container: network {model.settings.network.entry_point} is of a package of your own, which the "
            "container would lack; export the others, and install your package in a Dockerfile of your own"
        )
    copy_package(package, folder / "model")
    code = Path(__file__).resolve().parents[1]
    shutil.copytree(code, folder / "app" / "hngtv", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    if not (code / "conf").is_dir():  # in a checkout the settings lie beside the package
        shutil.copytree(code.parents[1] / "conf", folder / "app" / "hngtv" / "conf")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    write_text(folder / "Dockerfile", DOCKERFILE.format(python=version))
    write_text(folder / "requirements.txt", "".join(f"{line}\n" for line in _requirements()))
    write_text(folder / "README.md", README)


def _requirements() -> list[str]:
    """The versions that are installed here, without the labels of local builds.

    Raises:
        InputError: One is not installed.
    """
    lines = []
    for name in REQUIREMENTS:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise InputError(f"formats=container needs {name}: pip install 'hngtv[challenge]'") from None
        lines.append(f"{name}=={re.sub(r'[+].*', '', version)}")
    return lines
