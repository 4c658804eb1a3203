"""Segment one patient as an entry of HECKTOR 2025 (task 1) or 2026 on Grand Challenge does.

    hngtv challenge year=2025 input=/input output=/output model=/opt/ml/model
    hngtv challenge year=2026 input=/input output=/output model=/opt/ml/model

Reads input/images/ct/*.mha and input/images/pet/*.mha (or the folders that input/inputs.json names) and writes
output.mha, uint8 on the CT's grid: 0 background, 1 GTVp, 2 GTVn. Needs hngtv[challenge].

2026 also asks for t-stage.json, n-stage.json and rfs.json. hngtv predicts none of them: without t_stage, n_stage and
rfs they hold null, which the platform may refuse; with them the given constants, which are no predictions either.

Exit status: 0 done, 2 bad settings or input (no mask is written then).
"""

import logging
import time

from hngtv.config import ChallengeSettings

log = logging.getLogger(__name__)


def run(settings: ChallengeSettings) -> None:
    """Predict the patient; see the module docstring."""
    started = time.perf_counter()
    import torch

    from hngtv.commands.costs import peak_memory_mb
    from hngtv.commands.log import logging_to
    from hngtv.export.challenge import INTERFACES, MEMORY_GB, segment_patient, write_stages
    from hngtv.export.package import open_model

    if settings.n_threads:
        torch.set_num_threads(settings.n_threads)
    interface = INTERFACES[settings.year]
    with logging_to():
        model = open_model(settings.model)
        prediction = segment_patient(model, settings.input, settings.output, interface)
        if prediction.roi.is_fallback:
            log.warning("%s", prediction.roi.reason)
        if interface.has_stages:
            given = (settings.t_stage, settings.n_stage, settings.rfs)
            write_stages(settings.output, *given)
            what = "null" if given == (None, None, None) else "constants"
            log.warning("t-stage.json, n-stage.json and rfs.json hold %s: hngtv predicts no stage and no outcome", what)
        seconds, memory_gb = time.perf_counter() - started, peak_memory_mb() / 1024
        within = seconds <= interface.limit_s and memory_gb <= MEMORY_GB
        say = log.info if within else log.warning
        say("%.1f s of %g s, %.2f GB of %g GB", seconds, interface.limit_s, memory_gb, MEMORY_GB)
    print(settings.output / interface.mask / "output.mha")
