"""Set the lesions of cropped cases into long phantom scans, each into one of its own.

    hngtv embed data.root=DIR out=data/sts_long
    hngtv embed data.root=DIR out=DIR2 seed=1 size=small
    hngtv run data=sts_long

Reads a cohort whose scans are cropped about the tumour, and sets each tumour, with the tissue next to it, into the
scan of a phantom patient without tumours from the crown to the upper belly, 512 x 512 x 200 voxels (small: 4 and 2
times coarser). The host's uptake stays: brain, glands, tonsils, heart. Where and how is told in
hngtv/cases/embed.py. Writes CASE/{ct,pet,gtv}.nii.gz, CASE/embedded.json with what was done, and cases.csv.
Host and place follow from seed and case id. Finished cases are skipped, so the same command continues where a stopped
one left off; cases made with other settings or from other files are made again.

Exit status: 0 done, 1 some cases failed (each listed; the others are done), 2 bad settings or input.
"""

import time

from hngtv.config import EmbedSettings

MANIFEST_NAME = "cases.csv"


def run(settings: EmbedSettings) -> None:
    """Write the cohort and its manifest.

    Raises:
        InputError: No cases found, or the output folder cannot be used.
        CasesFailedError: Some cases failed; each was told in a line of its own.
    """
    from hngtv.cases.embed_files import EmbedPlan, embed_cases
    from hngtv.cases.manifest import FolderLayout, load_cases, write_manifest
    from hngtv.commands.prepare import report_failures

    started = time.monotonic()
    data = settings.data
    cases = load_cases(data.root, FolderLayout.of(data))
    done, failures = embed_cases(cases, EmbedPlan(settings.out, settings.seed, settings.size))
    if done:
        write_manifest(settings.out / MANIFEST_NAME, done)
    seconds = time.monotonic() - started
    print(f"{len(done)} of {len(cases)} cases are embedded ({seconds:.1f} s): {settings.out / MANIFEST_NAME}")
    report_failures(failures, len(cases))
