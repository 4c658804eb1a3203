"""A job of a sweep that trains nothing: it does what `behaviour.json` in its folder says for its fold, then scores.

Run as `hngtv.commands.job` is; each start adds a line to `starts.txt`.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from hngtv.commands import entry, job, run
from hngtv.config import RunSettings
from hngtv.errors import InputError
from hngtv.run_folder import RunFolder, write_csv

SCORES = ("dice", "precision", "recall", "hd95_mm", "msd_mm", "surface_dice_2mm")
PROGRAM = (str(Path(__file__)), "run")
SLOW_S = 60.0


def walk(folder: RunFolder, settings: RunSettings) -> list[str]:
    with Path("starts.txt").open("a") as stream:
        stream.write(f"{settings.arm} fold {settings.fold} {time.time():.3f}\n")
    behaviour: dict[str, Any] = json.loads(Path("behaviour.json").read_text())
    match behaviour.get(str(settings.fold)):
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "bug":
            raise RuntimeError("out of luck")
        case "bad input":
            raise InputError("case x: no CT")
        case "slow":
            time.sleep(SLOW_S)
        case float(seconds):
            time.sleep(seconds)
    rows = [
        {"case_id": f"case_{n}", "class_name": "GTV", "volume_ml": 1.0, "target_volume_ml": 1.0}
        | dict.fromkeys(SCORES, 0.1 * n + 0.01 * float(settings.fold))
        for n in range(3)
    ]
    write_csv(folder.scores, ("case_id", "class_name", "volume_ml", "target_volume_ml", *SCORES), rows)
    return ["case_0: lost"] if behaviour.get(str(settings.fold)) == "lose a case" else []


if __name__ == "__main__":
    run._walk = walk
    job.follow_parent()
    entry.main()
