"""Check a cohort and show it on one page.

    hngtv check cases=cases.csv out=checked
    hngtv check cases=HECKTOR_FOLDER out=checked n_workers=1
    hngtv check cases=cases.csv out=checked estimate_shift=true     how far PET lies off CT (needs hngtv[registration])

Every case is read whole and checked as `hngtv import` does it; nothing of the cohort is changed. Into out go

    check.html      what was found and what to do, duplicates by content, centres, pictures of every case, histograms
                    with the cases far from the others named, geometry, lesions; one file that fetches nothing
    findings.csv    all that is wrong or odd
    facts.csv       grids, volumes, lesions, SUVmax of each case that can be used

DICOM and 4D images are imported first: hngtv import source=DIR out=NEW_FOLDER/cases.csv

Exit status: 0 done, 1 some cases are refused (each listed), 2 bad settings or input.
"""

from functools import partial

from hngtv.cases.findings import Finding, write_findings
from hngtv.cases.inspect import InspectPlan
from hngtv.cases.layouts import recognise_written
from hngtv.cases.manifest import FolderLayout, RawCase
from hngtv.cases.processes import map_cases
from hngtv.cases.registration import require_library
from hngtv.commands.log import tell
from hngtv.config import CheckSettings
from hngtv.errors import CasesFailedError
from hngtv.report.check_case import CheckedCase, check_one, refuse
from hngtv.report.check_page import CohortCheck, render_check
from hngtv.run_folder import make_folder, write_text

PAGE_NAME = "check.html"


def run(settings: CheckSettings) -> None:
    """Write the page and the tables.

    Raises:
        InputError: No case found, files that must be imported first, or the folder cannot be written.
        CasesFailedError: Some cases are refused; each was told in a line of its own.
    """
    data, plan = settings.data, InspectPlan(settles_units=False, estimates_shift=settings.estimate_shift)
    if settings.estimate_shift:
        require_library()
    found = recognise_written(data.root, FolderLayout.of(data))
    make_folder(settings.out)
    results = map_cases(partial(check_one, plan=plan), found.cases, settings.n_workers, _killed, "checking")
    checked = {case.case_id: result for case, result in results}
    notes = [Finding("", "note", line) for line in found.notes]
    check = CohortCheck(str(data.root), [checked[case.case_id] for case in found.cases], notes)
    for finding in check.findings:
        tell(finding)
    write_findings(settings.out, check.findings, check.facts)
    write_text(settings.out / PAGE_NAME, render_check(check))
    n_cases = len(found.cases)
    print(f"{len(check.facts)} of {n_cases} cases can be used; wrote {settings.out / PAGE_NAME}")
    if check.n_refused:
        raise CasesFailedError(f"{check.n_refused} of {n_cases} cases are refused (listed above)")


def _killed(case: RawCase) -> CheckedCase:
    reason = "a worker process was killed, most likely for lack of memory; run hngtv check with n_workers=1"
    return refuse(case, f"case {case.case_id}: {reason}")
