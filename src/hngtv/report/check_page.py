"""The check report of a cohort: one HTML file, findings first, a strip of pictures for each case."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hngtv.cases.findings import CaseFacts, Finding, cohort_findings, count_centres, find_duplicates
from hngtv.cases.quantities import (
    HU_EDGES,
    MIN_CASES,
    SUV_EDGES,
    Quantity,
    distance_quantity,
    find_outliers,
    list_quantities,
    name_outliers,
    outlier_finding,
)
from hngtv.report.check_case import CheckedCase, Look
from hngtv.report.check_charts import draw_quantity, draw_shares
from hngtv.report.figures import data_url
from hngtv.report.overlay import CT_WINDOW_HU, PET_WINDOW_SUV, TRUTH_COLOURS
from hngtv.report.stand_alone import package_version, policy_of
from hngtv.report.viewer import templates

TEMPLATE = "check.html.jinja"
MAX_FINDINGS_SHOWN = 40
"""More are folded away; all are in findings.csv. Source: our choice."""
MAX_LESIONS = 8
"""Named in a row. Source: our choice."""
SEVERITIES = ("error", "warning", "note")
SEVERITY_WORDS = {"error": "refused", "warning": "warning", "note": "note"}


@dataclass(frozen=True)
class CohortCheck:
    """A cohort with all that was found.

    Attributes:
        source: What was checked.
        cases: In the order of the source.
        notes: What the source itself gives to tell.
    """

    source: str
    cases: Sequence[CheckedCase]
    notes: Sequence[Finding] = field(default=())

    @cached_property
    def facts(self) -> list[CaseFacts]:
        return [one.facts for one in self.cases if one.facts is not None]

    @cached_property
    def looks(self) -> dict[str, Look]:
        return {one.case.case_id: one.look for one in self.cases if one.look is not None}

    @cached_property
    def distances(self) -> tuple[Quantity, Quantity]:
        """Of the CT's and of the PET's values."""
        hu = {case_id: look.hu for case_id, look in self.looks.items()}
        suv = {case_id: look.suv for case_id, look in self.looks.items()}
        return (
            distance_quantity("CT values, distance to the cohort's histogram", "HU", hu, HU_EDGES),
            distance_quantity("PET values, distance to the cohort's histogram", "SUV", suv, SUV_EDGES),
        )

    @cached_property
    def quantities(self) -> list[Quantity]:
        return list_quantities(self.facts)

    @cached_property
    def findings(self) -> list[Finding]:
        """All, the worst first."""
        found = [*self.notes, *(finding for one in self.cases for finding in one.findings)]
        found += cohort_findings(self.facts)
        found += [note for q in (*self.quantities, *self.distances) if (note := outlier_finding(q)) is not None]
        return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))

    @property
    def n_refused(self) -> int:
        return len(self.cases) - len(self.facts)


def render_check(check: CohortCheck) -> str:
    """The report as HTML text."""
    page = templates().get_template(TEMPLATE).render(**_content(check))
    return page.replace("POLICY", policy_of(page), 1)


def _content(check: CohortCheck) -> dict[str, Any]:
    level, width = sum(CT_WINDOW_HU) / 2, CT_WINDOW_HU[1] - CT_WINDOW_HU[0]
    return {
        "check": check,
        "headline": _headline(check),
        "sentences": _sentences(check),
        "severity_words": SEVERITY_WORDS,
        "max_findings": MAX_FINDINGS_SHOWN,
        "duplicates": find_duplicates(check.facts),
        "centres": _centre_rows(check),
        "cards": [_card(one, check.findings) for one in check.cases],
        "charts": [*_share_charts(check), *map(_quantity_chart, check.quantities)],
        "has_shift": any(fact.shift_mm is not None for fact in check.facts),
        "targets": [fact for fact in check.facts if fact.gtvp_ml is not None],
        "lesions_of": _lesions,
        "colours": TRUTH_COLOURS,
        "window": f"CT level {level:.0f}, width {width:.0f} HU; PET up to {PET_WINDOW_SUV[1]:.0f} SUV",
        "min_cases": MIN_CASES,
        "version": package_version(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def _headline(check: CohortCheck) -> str:
    n = len(check.cases)
    if not check.n_refused:
        return f"{_cases(n)}: all can be used." if n != 1 else "1 case: it can be used."
    return f"{_cases(n)}: {len(check.facts)} can be used, {check.n_refused} {_are(check.n_refused)} refused."


def _sentences(check: CohortCheck) -> list[str]:
    facts = check.facts
    n_target = sum(fact.gtvp_ml is not None for fact in facts)
    n_train = sum(fact.split == "train" for fact in facts)
    counts = Counter(finding.severity for finding in check.findings)
    said = []
    if facts:
        has = "has" if n_target == 1 else "have"
        said.append(
            f"Of those that can be used, {n_target} {has} a target (GTVp in {_n_with(facts, 'gtvp_ml')}, GTVn in "
            f"{_n_with(facts, 'gtvn_ml')}); {n_train} are to train on and {len(facts) - n_train} to test on."
        )
    n_pairs = len(find_duplicates(facts))
    same = "No two hold the same voxels." if not n_pairs else f"{_plural(n_pairs, 'pair')} with the same voxels."
    said.append(f"{_plural(counts['warning'], 'warning')}, {_plural(counts['note'], 'note')}. {same}")
    if check.n_refused:
        said.append("Each refused case stands below with its reason and what to do; mend it, then check again.")
    elif counts["warning"]:
        said.append("Look at each warning below, mend what is wrong, then check again.")
    else:
        said.append("Nothing has to be mended. Look at the pictures: no check sees whether an outline is right.")
    return said


def _n_with(facts: Sequence[CaseFacts], name: str) -> int:
    return sum(bool(getattr(fact, name)) for fact in facts)


def _centre_rows(check: CohortCheck) -> list[dict[str, Any]]:
    """Counts of each centre with its refused cases, and medians of what its good cases hold."""
    good = {row.centre: row for row in count_centres(check.facts)}
    refused = Counter(one.case.centre for one in check.cases if one.facts is None)
    rows = []
    for centre in sorted({*good, *refused}):
        facts = [fact for fact in check.facts if fact.centre == centre]
        volumes = [fact.gtvp_ml + (fact.gtvn_ml or 0.0) for fact in facts if fact.gtvp_ml is not None]
        rows.append(
            {
                "name": centre or "unknown",
                "counts": good.get(centre),
                "n_refused": refused[centre],
                "gtv_ml": float(np.median(volumes)) if volumes else None,
                "suv_max": float(np.median([fact.suv_max for fact in facts])) if facts else None,
                "spacings": sorted({fact.ct_spacing_mm.replace(" ", " x ") for fact in facts}),
            }
        )
    return rows


def _card(one: CheckedCase, findings: Sequence[Finding]) -> dict[str, Any]:
    case_id = one.case.case_id
    told = [finding for finding in findings if finding.case_id == case_id and finding.severity != "note"]
    pictures = one.look.pictures if one.look is not None else ()
    text = "" if one.facts is None else f"{_volumes(one.facts)}; SUVmax {one.facts.suv_max:.1f}"
    return {"case": one.case, "text": text, "pictures": pictures, "told": told}


def _volumes(fact: CaseFacts) -> str:
    if fact.gtvp_ml is None:
        return "no target"
    said = []
    for name, ml, n_parts in (("GTVp", fact.gtvp_ml, fact.n_gtvp), ("GTVn", fact.gtvn_ml, fact.n_gtvn)):
        parts = f" in {n_parts} parts" if n_parts and n_parts > 1 else ""
        said.append(f"{name} {ml:.1f} ml{parts}" if n_parts else f"no {name}")
    return ", ".join(said)


def _share_charts(check: CohortCheck) -> list[dict[str, str]]:
    if not check.looks:
        return []
    charts = []
    kinds = (("hu", HU_EDGES, "CT [HU]"), ("suv", SUV_EDGES, "PET [SUV]"))
    for (name, edges, label), distance in zip(kinds, check.distances, strict=True):
        shares = {case_id: getattr(look, name) for case_id, look in check.looks.items()}
        outliers = [case_id for case_id, _ in find_outliers(distance)]
        figure = draw_shares(shares, edges, f"{label}, from {edges[0]:g} on", outliers)
        what = f"{label}: a line for each case, the thick one is their median; the last bin holds all beyond."
        charts.append({"name": label, "picture": data_url(figure, lossless=True), "text": _far(what, distance)})
    return charts


def _quantity_chart(quantity: Quantity) -> dict[str, str]:
    median = quantity.write(float(np.median([value for _, value in quantity.values])))
    what = f"{quantity.name}: {len(quantity.values)} {quantity.counted}, median {median}."
    picture = data_url(draw_quantity(quantity), lossless=True)
    return {"name": quantity.name, "picture": picture, "text": _far(f"{what[0].upper()}{what[1:]}", quantity)}


def _far(text: str, quantity: Quantity) -> str:
    outliers = find_outliers(quantity)
    return f"{text} Far from the others: {name_outliers(quantity, outliers)}." if outliers else text


def _lesions(volumes_ml: str) -> str:
    """The largest ones, and how many more there are."""
    found = [f"{float(ml):.1f}" for ml in volumes_ml.split()]
    n_more = len(found) - MAX_LESIONS
    return ", ".join(found[:MAX_LESIONS]) + (f" and {n_more} more" if n_more > 0 else "")


def _plural(n: int, word: str) -> str:
    return f"{n or 'No'} {word}" + ("" if n == 1 else "s")


def _cases(n: int) -> str:
    return _plural(n, "case")


def _are(n: int) -> str:
    return "is" if n == 1 else "are"
