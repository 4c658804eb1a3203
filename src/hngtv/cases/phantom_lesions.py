"""The tumours of the phantom: a primary beside the airway and nodes along the jugular chain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hngtv.cases.phantom_anatomy import Anatomy
from hngtv.cases.phantom_paint import Organ, Profile
from hngtv.cases.phantom_shapes import Blob, Cut, Ellipsoid, Grown, Waves

GTVP, GTVN = 1, 2
# Source: our choice; medians of real cohorts, tails cut so that a coarse grid still shows all.
GTVP_MEDIAN_ML, GTVP_LOG_SD, GTVP_RANGE_ML = 13.0, 0.55, (4.0, 50.0)
GTVN_MEDIAN_ML, GTVN_LOG_SD, GTVN_RANGE_ML = 6.5, 0.5, (2.2, 25.0)
GTVP_MEDIAN_SUV, GTVN_MEDIAN_SUV, SUV_LOG_SD = 9.0, 7.5, 0.25
COLD_SUV = (1.6, 2.4)
SITES = {  # name: (weight, point on the airway wall of the right side [atlas mm], way out)
    "tonsil": (0.40, (13.0, 11.0, -2.0), (1.0, 0.15, 0.0)),
    "base of tongue": (0.25, (7.0, 17.0, -16.0), (0.45, 1.0, 0.1)),
    "larynx": (0.15, (8.0, 18.0, -46.0), (1.0, 0.35, 0.0)),
    "hypopharynx": (0.10, (9.0, 9.0, -52.0), (1.0, -0.35, 0.0)),
    "nasopharynx": (0.10, (11.0, 8.0, 26.0), (1.0, -0.1, -0.3)),
}
LEVELS = {  # neck level: (weight, centre on the right side [atlas mm])
    "II": (0.50, (38.0, -2.0, -14.0)),
    "III": (0.25, (34.0, 4.0, -46.0)),
    "IV": (0.12, (30.0, 8.0, -80.0)),
    "V": (0.08, (44.0, -32.0, -52.0)),
    "Ib": (0.05, (30.0, 36.0, -36.0)),
}


@dataclass(frozen=True)
class LesionPlan:
    """What a patient is to have, decided before anything is drawn."""

    gtvp: bool
    gtvn: bool
    cold: bool
    necrotic: bool


def draw_lesions(rng: np.random.Generator, plan: LesionPlan, anatomy: Anatomy) -> tuple[list[Organ], list[dict]]:
    """Draw the lesions of one patient.

    Returns:
        The organs to paint last, nodes before the primary (which wins where they touch), and one plain record
        per lesion with `label`, `place`, `side`, `planned_ml`, `suv`, `cold`, `necrotic`.
    """
    side = float(rng.choice([-1.0, 1.0]))
    records = _plan_nodes(rng, side) if plan.gtvn else []
    if plan.gtvp:
        records.append(_plan_primary(rng, side))
    if plan.cold:
        chosen = records[int(rng.integers(len(records)))]
        chosen.update(cold=True, suv=float(rng.uniform(*COLD_SUV)))
    nodes = [record for record in records if record["label"] == GTVN]
    if plan.necrotic and nodes:
        largest = max(nodes, key=lambda record: record["planned_ml"])
        largest.update(necrotic=True, planned_ml=max(largest["planned_ml"], 8.0))
    organs = [_organ(rng, record, anatomy) for record in records]
    return organs, [{k: v for k, v in record.items() if k not in ("anchor", "way_out")} for record in records]


def _plan_primary(rng: np.random.Generator, side: float) -> dict:
    names = list(SITES)
    site = names[int(rng.choice(len(names), p=[SITES[name][0] for name in names]))]
    _, anchor, way_out = SITES[site]
    return {
        "label": GTVP,
        "place": site,
        "side": "right" if side > 0 else "left",
        "planned_ml": _volume(rng, GTVP_MEDIAN_ML, GTVP_LOG_SD, GTVP_RANGE_ML),
        "suv": float(np.clip(rng.lognormal(np.log(GTVP_MEDIAN_SUV), SUV_LOG_SD), 5.0, 18.0)),
        "cold": False,
        "necrotic": False,
        "anchor": np.array([side * anchor[0], *anchor[1:]]) + rng.normal(0.0, 1.0, 3),
        "way_out": np.array([side * way_out[0], *way_out[1:]]) / np.linalg.norm(way_out),
    }


def _plan_nodes(rng: np.random.Generator, side: float) -> list[dict]:
    names, weights = list(LEVELS), np.array([level[0] for level in LEVELS.values()])
    n_nodes = int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.20]))
    picked = rng.choice(len(names), size=n_nodes, replace=False, p=weights)
    records = []
    for level in picked:
        node_side = side if rng.random() < 0.8 else -side
        centre = LEVELS[names[level]][1]
        records.append(
            {
                "label": GTVN,
                "place": f"level {names[level]}",
                "side": "right" if node_side > 0 else "left",
                "planned_ml": _volume(rng, GTVN_MEDIAN_ML, GTVN_LOG_SD, GTVN_RANGE_ML),
                "suv": float(np.clip(rng.lognormal(np.log(GTVN_MEDIAN_SUV), SUV_LOG_SD), 4.0, 16.0)),
                "cold": False,
                "necrotic": False,
                "anchor": np.array([node_side * centre[0], *centre[1:]]) + rng.normal(0.0, (2.0, 3.0, 5.0)),
                "way_out": np.zeros(3),
            }
        )
    return records


def _volume(rng: np.random.Generator, median_ml: float, log_sd: float, range_ml: tuple[float, float]) -> float:
    return float(np.clip(rng.lognormal(np.log(median_ml), log_sd), *range_ml))


def _organ(rng: np.random.Generator, record: dict, anatomy: Anatomy) -> Organ:
    radius = (record["planned_ml"] * 1000.0 * 0.75 / np.pi) ** (1 / 3)
    stretch = np.exp(rng.normal(0.0, 0.12, 3))
    if record["label"] == GTVN:
        stretch[2] *= 1.25  # nodes lie along the vessels
    radii = radius * stretch / np.cbrt(np.prod(stretch))
    centre = record["anchor"] + record["way_out"] * radius * 0.75
    bumps = Waves.draw(rng, 9, 1.1 * radius, 3.0 * radius)
    roughness = 0.13 if record["label"] == GTVP else 0.07
    blob = Blob(Ellipsoid(tuple(centre), tuple(radii)), bumps, roughness)
    lumen = Grown(anatomy.airway, -2.5 if record["label"] == GTVP else 4.0)
    shape = Cut(blob, inside=(Grown(anatomy.body, -3.0),), outside=(lumen, Grown(anatomy.spine, 2.0)))
    hu = float(rng.uniform(80.0, 98.0))
    suv = record["suv"]
    if record["necrotic"]:
        wall = 0.42 * float(min(radii))
        depths = (0.0, wall - 1.0, wall + 1.0)
        return Organ(
            "lesion",
            shape,
            Profile(depths, (hu, hu, 18.0)),
            Profile(depths, (suv, suv, 0.9)),
            record["label"],
        )
    core = float(rng.uniform(0.85, 1.15)) * suv
    return Organ("lesion", shape, hu, Profile((0.0, 3.0, 8.0), (0.8 * suv, suv, core)), record["label"])
