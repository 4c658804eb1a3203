"""Write cases in the layout of another tool, with the same folds.

    hngtv convert cases=cases.csv out=nnUNet_raw/Dataset501_HNGTV format=nnunet
    hngtv convert cases=cases.csv out=nnUNet_raw/Dataset501_HNGTV format=nnunet data.n_folds=3

format=nnunet: imagesTr, labelsTr, imagesTs, dataset.json; PET interpolated on the CT grid. splits_final.json holds the
folds that `hngtv run` makes of the same cases with the same data settings: copy it into nnUNet_preprocessed/DATASET
before training. case_ids.csv tells which case is which, and is the manifest to score nnU-Net's masks against:

    hngtv evaluate predictions=NNUNET_MASKS targets=nnUNet_raw/Dataset501_HNGTV/case_ids.csv

Exit status: 0 done, 1 some cases failed (each listed; the others are written), 2 bad settings or input.
"""

import sys

from hngtv.config import ConvertSettings
from hngtv.errors import CasesFailedError


def run(settings: ConvertSettings) -> None:
    """Write the data set.

    Raises:
        InputError: No cases found, or the output folder cannot be used.
        CasesFailedError: Some cases failed; each was told in a line of its own.
    """
    from hngtv.cases.layouts.write_nnunet import DATASET_NAME, FoldPlan, write_nnunet
    from hngtv.cases.manifest import FolderLayout, load_cases

    data = settings.data
    cases = load_cases(data.root, FolderLayout.of(data))
    done, failures = write_nnunet(cases, settings.out, FoldPlan(data.n_folds, data.fold_seed, data.group_by_centre))
    if not DATASET_NAME.fullmatch(settings.out.name):
        print(f"warning: nnU-Net wants a folder named like Dataset501_HNGTV, not {settings.out.name}", file=sys.stderr)
    print(f"{len(done)} of {len(cases)} cases are written: {settings.out}")
    for failure in failures:
        print(failure, file=sys.stderr)
    if failures:
        raise CasesFailedError(f"{len(failures)} of {len(cases)} cases failed (listed above)")
