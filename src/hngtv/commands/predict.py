"""Outline the tumour of new patients with a finished run, an ensemble of runs, or a package of either.

    hngtv predict model=RUN_DIR ct=FILE pet=FILE out=MASK.nii.gz
    hngtv predict model=PACKAGE cases=FOLDER_OR_CSV out=DIR
    hngtv predict model=PACKAGE dicom=FOLDER out=DIR formats=nifti,rtstruct,seg,pdf

A patient without a PET is predicted by a run that was trained for that: with augment.pet_dropout, or on CT alone
(fusion=ct_only in all stages). Its PET counts as SUV 0, with a warning; other runs refuse.

With attention=true the alphas of the gates are written too, as MASK_gate2.nii.gz and so on: values in [0, 1] on the
CT's grid, to be laid over it.

With dicom=, the patients of a folder in any order are converted (docs/dicom.md) and predicted into out/CASE/:
mask.nii.gz, and of formats=rtstruct,seg,pdf rtstruct.dcm, seg.dcm and report.pdf; the first two refer to the CT series.
With cases= or ct= and pet=, the page lies beside the mask as MASK_report.pdf. probability=true writes the probability
of tumour beside the mask too; uncertainty=true its entropy in bits, and where the model is an ensemble the standard
deviation over its networks. An ensemble (hngtv ensemble) also says which patients a person should look at first.

The mask has the CT's grid, orientation and header (0 background, 1 GTVp, 2 GTVn); beside it lies a JSON with timings,
the region of interest and the model's digest. With cases=, out/ also gets rois.csv, and cases that are already
predicted by this model are skipped, but not with attention=true; n_workers processes work side by side, each with one
case in memory. A PET in Bq/mL needs a cases.csv with its factor.

Exit status: 0 done, 1 some cases could not be predicted (listed), 2 bad settings or input.
"""

from pathlib import Path

from hngtv.config import PredictSettings
from hngtv.errors import InputError
from hngtv.run_folder import make_folder


def run(settings: PredictSettings) -> None:
    """Predict one case or many; see the module docstring."""
    from hngtv.commands.log import logging_to
    from hngtv.commands.predict_many import open_once, predict_many
    from hngtv.commands.predict_one import predict_one
    from hngtv.segmentation import check_has_gates

    with logging_to():
        if settings.ct is not None:
            _check_output(settings.out)
        else:
            make_folder(settings.out)
        open_once.cache_clear()
        model = open_once(settings)
        if settings.attention:
            check_has_gates(model)
        if settings.ct is not None:
            predict_one(model, settings)
        else:
            predict_many(model, settings)


def _check_output(out: Path) -> None:
    from hngtv.volume.nifti import SUFFIXES, has_nifti_name

    if not has_nifti_name(out):
        raise InputError(f"out is {out}; expected a file name that ends in {' or '.join(SUFFIXES)}")
    make_folder(out.parent)
