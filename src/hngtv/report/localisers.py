"""Localisers held against each other: one table, one curve, one table of bad scans."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hngtv.cases.manifest import RawCase
from hngtv.localise.located import LocalisedCase
from hngtv.report.figures import ARM_COLOURS, plain
from hngtv.report.overlay import draw_case, load_view
from hngtv.volume.box import hull, union_ml

LOCALISER_COLUMNS = (
    "localiser", "n_patients", "n_with_tumour", "margin_mm", "share_all", "share_99", "share_95", "n_rois_mean",
    "volume_ml_mean", "efficiency_mean", "margin_for_all_mm", "volume_for_all_ml", "n_fallbacks", "seconds_mean",
)  # fmt: skip
DISTURBED_COLUMNS = (
    "disturbance", "localiser", "n_patients", "n_refused", "n_fallbacks", "share_all", "volume_ml_mean",
    "confidence_mean",
)  # fmt: skip
MARGINS_MM = tuple(range(-100, 102, 2))
"""Margins along the curve. Source: our choice."""
ENOUGH_PATIENTS = 0.99
"""Share of patients whose whole tumour a margin must hold to be enough. Source: our choice."""


COLOURS = (*ARM_COLOURS, "#000000", "#8c564b", "#9a9a00", "#b0c4de")
"""One for each localiser that we have. Source: those of the arms, and four of our choice."""


def localiser_rows(cases: Sequence[LocalisedCase], margin_mm: float) -> list[dict[str, Any]]:
    """Rows of the table, with the columns `LOCALISER_COLUMNS`, in the order of the localisers; undisturbed scans."""
    cases = [case for case in cases if not case.disturbance]
    rows = []
    for name in dict.fromkeys(case.localiser for case in cases):
        own = [case for case in cases if case.localiser == name]
        with_tumour = [case for case in own if case.margins_mm is not None]
        enough_mm = margin_for_all(own)
        volumes = [volume_ml(case, margin_mm) for case in own]
        rows.append(
            {
                "localiser": name,
                "n_patients": len(own),
                "n_with_tumour": len(with_tumour),
                "margin_mm": margin_mm,
                **{
                    f"share_{label}": share_held(own, number, margin_mm)
                    for number, label in enumerate(("all", "99", "95"))
                },
                "n_rois_mean": _mean([len(case.boxes) for case in own]),
                "volume_ml_mean": _mean(volumes),
                "efficiency_mean": _mean([case.target_ml / volume_ml(case, margin_mm) for case in with_tumour]),
                "margin_for_all_mm": enough_mm,
                "volume_for_all_ml": _mean_ml(own, enough_mm),
                "n_fallbacks": sum(case.reason.startswith("fallback") for case in own),
                "seconds_mean": _mean([case.seconds for case in own]),
            }
        )
    return rows


def disturbed_rows(cases: Sequence[LocalisedCase], margin_mm: float) -> list[dict[str, Any]]:
    """Rows of the table of bad scans, with the columns `DISTURBED_COLUMNS`; the good scans first."""
    rows = []
    for disturbance in dict.fromkeys(case.disturbance for case in cases):
        for name in dict.fromkeys(case.localiser for case in cases):
            own = [case for case in cases if (case.disturbance, case.localiser) == (disturbance, name)]
            seen = [case for case in own if case.boxes]
            rows.append(
                {
                    "disturbance": disturbance or "none",
                    "localiser": name,
                    "n_patients": len(own),
                    "n_refused": len(own) - len(seen),
                    "n_fallbacks": sum(case.reason.startswith("fallback") for case in seen),
                    "share_all": share_held(seen, 0, margin_mm),
                    "volume_ml_mean": _mean_ml(seen, margin_mm),
                    "confidence_mean": _mean([case.confidence for case in seen]),
                }
            )
    return rows


def volume_ml(case: LocalisedCase, margin_mm: float) -> float:
    """Volume that a case's boxes with a margin hold together, inside the image.

    Negative margins shrink a box to nothing at most; NaN for a margin that is NaN.
    """
    if np.isnan(margin_mm):
        return float("nan")
    boxes = [box.expand(margin_mm) for box in case.boxes if min(box.size_mm) + 2 * margin_mm > 0]
    return union_ml([inside for box in boxes if (inside := box.intersect(case.image)) is not None])


def share_held(cases: Sequence[LocalisedCase], number: int, margin_mm: float) -> float:
    """Share of the patients with a tumour whose boxes hold the `number`-th of the shares asked for; NaN for none."""
    needed = [case.margins_mm[number] for case in cases if case.margins_mm is not None]
    return _mean([mm <= margin_mm for mm in needed])


def margin_for_all(cases: Sequence[LocalisedCase]) -> float:
    """The least margin in mm with which the boxes of `ENOUGH_PATIENTS` hold the whole tumour; NaN without tumours."""
    needed = sorted(case.margins_mm[0] for case in cases if case.margins_mm is not None)
    return needed[int(np.ceil(ENOUGH_PATIENTS * len(needed) - 1e-9)) - 1] if needed else float("nan")


def draw_localisers(
    cases: Sequence[LocalisedCase], margin_mm: float | Mapping[str, float], learned: Sequence[str]
) -> Figure:
    """Share of patients held against mean volume, a panel for each share of the tumour; a dot at the run's margin.

    Args:
        cases: Disturbed scans among them are left out.
        margin_mm: Of all localisers, or of each by name.
        learned: Names of those with a network; they are drawn solid.
    """
    cases = [case for case in cases if not case.disturbance]
    figure = Figure(figsize=(10.5, 4.2), dpi=110, layout="constrained")
    names = list(dict.fromkeys(case.localiser for case in cases))
    margins = margin_mm if isinstance(margin_mm, Mapping) else dict.fromkeys(names, margin_mm)
    titles = ("all of the tumour", "99 % of it", "95 % of it")
    axes = figure.subplots(1, len(titles), sharey=True)
    cases_of = {name: [case for case in cases if case.localiser == name] for name in names}
    volumes = {name: [_mean_ml(own, mm) for mm in (*MARGINS_MM, margins[name])] for name, own in cases_of.items()}
    for number, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        for place, (name, own) in enumerate(cases_of.items()):
            *shares, at_margin = [100 * share_held(own, number, mm) for mm in (*MARGINS_MM, margins[name])]
            style = {"color": COLOURS[place % len(COLOURS)], "linestyle": "-" if name in learned else "--"}
            axis.plot(volumes[name][:-1], shares, linewidth=2 if name in learned else 1.2, label=plain(name), **style)
            axis.scatter(volumes[name][-1], at_margin, s=32, color=style["color"], zorder=3, clip_on=False)
        axis.set_xscale("log")
        axis.set_xlim(left=50)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda ml, _: f"{ml / 1000:g}"))
        axis.set_xlabel("mean volume of the ROI [l]", fontsize=9)
        axis.set_title(f"ROI holds {title}", fontsize=10)
        axis.grid(color="#dddddd", linewidth=0.7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    axes[0].set_ylabel("patients [%]", fontsize=9)
    axes[0].set_ylim(-2, 102)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    figure.suptitle(
        f"Each line: margins from {MARGINS_MM[0]} to {MARGINS_MM[-1]} mm; dot: {_words(set(margins.values()))} mm."
        " Up and left is better. Solid: learned; dashed: rules and bounds.",
        fontsize=9,
    )
    return figure


def _words(margins_mm: Iterable[float]) -> str:
    return " or ".join(f"{mm:g}" for mm in sorted(margins_mm))


def hardest_cases(cases: Sequence[LocalisedCase], localisers: Sequence[str], n_cases: int) -> list[LocalisedCase]:
    """The scans of which the named localisers held the whole tumour only with the widest margins, hardest first."""
    chosen = [
        case for case in cases if not case.disturbance and case.localiser in localisers and case.margins_mm is not None
    ]
    return sorted(chosen, key=lambda case: -(case.margins_mm or (0.0,))[0])[:n_cases]


def draw_located(located: LocalisedCase, case: RawCase, margin_mm: float) -> Figure:
    """Three planes of a scan with its tumour and the box around its ROIs, margin included."""
    needed = "" if located.margins_mm is None else f", needs {located.margins_mm[0]:.0f} mm"
    title = f"{located.localiser}, {located.case_id}: {located.reason}{needed}"
    return draw_case(load_view(case, box=hull(located.boxes).expand(margin_mm)), title)


def html_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as an HTML table, numbers rounded."""
    if not rows:
        return ""
    cells = [[f"{v:.3g}" if isinstance(v, float) else html.escape(str(v)) for v in row.values()] for row in rows]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells)
    return f"<table><tr>{head}</tr>{body}</table>"


def _mean_ml(cases: Sequence[LocalisedCase], margin_mm: float) -> float:
    return _mean([volume_ml(case, margin_mm) for case in cases])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
