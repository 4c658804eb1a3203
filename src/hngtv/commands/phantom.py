"""Write a phantom cohort: head-and-neck PET/CT that is made up, seeded and versioned.

    hngtv phantom out=data/phantom n_cases=24 seed=0
    hngtv phantom out=data/long n_cases=40 field_of_view=long

Writes CASE/{ct,pet,gtv}.nii.gz and cases.csv. What is modelled and what is not stands in hngtv/cases/phantom.py.
Case number 7 is the same whether 8 or 800 are made.

Exit status: 0 done, 2 bad settings or an output folder that cannot be written.
"""

from hngtv.config import PhantomSettings
from hngtv.run_folder import make_folder


def run(settings: PhantomSettings) -> None:
    """Write the cohort and its manifest."""
    from hngtv.cases.manifest import MANIFEST_COLUMNS
    from hngtv.cases.phantom import write_phantom
    from hngtv.run_folder import write_csv

    make_folder(settings.out)
    rows = write_phantom(settings.out, settings.n_cases, settings.seed, settings.size, settings.field_of_view)
    write_csv(settings.out / "cases.csv", MANIFEST_COLUMNS, rows)
    print(settings.out / "cases.csv")
