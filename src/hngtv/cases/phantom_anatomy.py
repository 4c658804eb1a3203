"""The atlas patient: head, neck and chest as a painted list of shapes.

The frame is upright, in millimetres: x to the right, y forward, z up; the origin lies in the oropharynx at
the height of the teeth. Later organs paint over earlier ones. Sizes and places are an average adult's, read
off textbook anatomy and rounded; Source: our choice. SUVs follow the usual physiology of FDG: brain
hottest, then tonsils, glands, vocal cords, and (in some) heart muscle and brown fat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hngtv.cases.phantom_head import (
    AIRWAY_KNOTS,
    make_airway_walls,
    make_face,
    make_glands,
    make_skull_and_brain,
    make_tonsils,
)
from hngtv.cases.phantom_paint import BodyMap, Organ, Profile
from hngtv.cases.phantom_shapes import Column, Ellipsoid, Shape, Union, Waves
from hngtv.cases.phantom_tissue import FAT_HU
from hngtv.cases.phantom_trunk import (
    SPINE_KNOTS,
    TORSO_KNOTS,
    make_brown_fat,
    make_neck_muscles,
    make_spine,
    make_torso,
    make_vessels,
)


@dataclass(frozen=True)
class Anatomy:
    """One patient, ready to paint.

    Attributes:
        body: outer surface.
        airway: pharynx to carina.
        spine: vertebral bodies.
        organs: in painting order, without lesions.
    """

    body: Shape
    airway: Column
    spine: Column
    organs: tuple[Organ, ...]


def draw_body_map(rng: np.random.Generator) -> BodyMap:
    """Draw size, place on the couch, tilt, head posture and irregularity of one patient."""
    tilt = np.eye(3)
    for axis, degrees in enumerate(rng.normal(0.0, (2.0, 1.5, 2.0))):
        tilt = tilt @ rotation(axis, np.deg2rad(np.clip(degrees, -5, 5)))
    flexion, lean, turn = np.deg2rad(np.clip(rng.normal(0.0, (6.0, 2.5, 4.0)), -12, 12))
    return BodyMap(
        origin_mm=rng.uniform((-25.0, -40.0, -900.0), (25.0, 40.0, 300.0)),
        tilt=tilt,
        scale=rng.normal(1.0, 0.04) * np.clip(rng.normal(1.0, 0.025, 3), 0.94, 1.06),
        head_turns_rad=(float(flexion), float(lean), float(turn)),
        wobbles=(_wobble(rng), _wobble(rng), _wobble(rng)),
        wobble_mm=1.6,
    )


def _wobble(rng: np.random.Generator) -> Waves:
    return Waves.draw(rng, n_waves=10, shortest_mm=50.0, longest_mm=140.0)


def rotation(axis: int, angle_rad: float) -> np.ndarray:
    """A right-handed rotation matrix (3, 3) about one world axis."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    first, second = [a for a in range(3) if a != axis]
    result = np.eye(3)
    result[first, first] = result[second, second] = cos
    result[first, second], result[second, first] = -sin, sin
    return result


def draw_anatomy(rng: np.random.Generator, *, contrast: bool, brown_fat: bool) -> Anatomy:
    """Draw the organs of one patient; `contrast` brightens vessels, glands and heart on CT."""
    girth = float(np.clip(rng.normal(1.04, 0.07), 0.95, 1.18))
    fat_mm = float(rng.uniform(3.0, 9.0))
    body = _body(girth)
    airway, spine = Column(AIRWAY_KNOTS), Column(SPINE_KNOTS, period_mm=17.0, filled=0.9)
    organs = [_outer(body, fat_mm)]
    organs += make_torso(rng, girth, contrast)
    organs += make_neck_muscles(rng)
    organs += make_skull_and_brain(rng)
    organs += make_face(rng)
    organs += make_spine(spine)
    organs += make_vessels(rng, contrast)
    organs += make_glands(rng, contrast)
    organs += make_airway_walls(rng, airway)
    organs += make_tonsils(rng)
    if brown_fat:
        organs += make_brown_fat(rng)
    return Anatomy(body, airway, spine, tuple(organs))


def _body(girth: float) -> Shape:
    neck = Column(
        (
            (48.0, 0.0, -30.0, 54.0 * girth, 58.0 * girth),
            (25.0, 0.0, -23.0, 60.0 * girth, 57.0 * girth),
            (-10.0, 0.0, -16.0, 60.0 * girth, 59.0 * girth),
            (-60.0, 0.0, -14.0, 58.0 * girth, 58.0 * girth),
            (-110.0, 0.0, -20.0, 66.0 * girth, 64.0 * girth),
            (-130.0, 0.0, -20.0, 70.0 * girth, 66.0 * girth),
        )
    )
    head = Ellipsoid((0, -12, 96), (77, 97, 68))
    face = Ellipsoid((0, 38, 24), (64, 53, 66), power=3)
    chin = Ellipsoid((0, 62, -22), (25, 23, 14))
    nose = Ellipsoid((0, 90, 40), (12, 18, 17))
    brow = Ellipsoid((0, 50, 66), (60, 40, 34))
    torso = Column(tuple((z, x, y, rx * (0.5 + 0.5 * girth), ry * girth) for z, x, y, rx, ry in TORSO_KNOTS))
    return Union((head, face, brow, chin, nose, neck, torso), blend_mm=16.0)


def _outer(body: Shape, fat_mm: float) -> Organ:
    depths = (0.0, 1.5, 2.5, fat_mm, fat_mm + 2.0)
    return Organ(
        "body",
        body,
        Profile(depths, (0.0, 0.0, FAT_HU, FAT_HU, -55.0)),
        Profile(depths, (0.6, 0.6, 0.35, 0.35, 0.65)),
    )
