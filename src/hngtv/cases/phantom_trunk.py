"""Organs below the mouth: neck muscles, spine, vessels, chest.

Atlas millimetres; Source: our choice, an average adult.
"""

from __future__ import annotations

import numpy as np

from hngtv.cases.phantom_paint import Organ, Profile
from hngtv.cases.phantom_shapes import Capsule, Column, Ellipsoid
from hngtv.cases.phantom_tissue import (
    AIR_HU,
    BONE,
    FAT_HU,
    MUSCLE_HU,
    Knots,
    make_column_pair,
    make_pair,
)

SPINE_KNOTS = (
    (34.0, 0.0, -14.0, 8.0, 7.0),
    (0.0, 0.0, -14.0, 9.0, 8.0),
    (-40.0, 0.0, -11.0, 10.0, 8.5),
    (-80.0, 0.0, -20.0, 12.0, 9.0),
    (-130.0, 0.0, -38.0, 14.0, 12.0),
    (-200.0, 0.0, -58.0, 16.0, 14.0),
    (-450.0, 0.0, -58.0, 18.0, 16.0),
)

TORSO_KNOTS = (
    (-78.0, 0.0, -19.0, 56.0, 56.0),
    (-92.0, 0.0, -21.0, 82.0, 60.0),
    (-104.0, 0.0, -23.0, 128.0, 66.0),
    (-118.0, 0.0, -25.0, 172.0, 75.0),
    (-140.0, 0.0, -25.0, 200.0, 88.0),
    (-200.0, 0.0, -20.0, 212.0, 103.0),
    (-300.0, 0.0, -12.0, 205.0, 114.0),
    (-460.0, 0.0, -8.0, 195.0, 116.0),
)


def make_neck_muscles(rng: np.random.Generator) -> list[Organ]:
    hu, suv = MUSCLE_HU, 0.85
    sternomastoid = ((28, 52, -36, 6, 10), (0, 48, -27, 7, 13), (-40, 42, -6, 7, 14), (-85, 29, 16, 6, 12))
    sternomastoid += ((-122, 14, 32, 5, 8),)
    organs = make_column_pair("sternomastoid", sternomastoid, hu, suv)
    deep = (
        (46, 16, -60, 14, 18),
        (25, 17, -52, 15, 18),
        (-40, 19, -46, 18, 18),
        (-95, 22, -54, 19, 18),
        (-130, 24, -66, 17, 15),
    )
    organs += make_column_pair("paraspinal", deep, hu, suv)
    trapezius = (
        (38, 10, -84, 9, 4),
        (15, 13, -74, 12, 4),
        (-40, 22, -63, 20, 6),
        (-80, 34, -60, 30, 9),
        (-120, 60, -66, 52, 12),
    )
    organs += make_column_pair("trapezius", trapezius, hu, suv)
    organs += make_column_pair(
        "levator", ((20, 36, -38, 7, 10), (-40, 38, -34, 8, 12), (-110, 48, -48, 11, 14)), hu, suv
    )
    organs += make_column_pair(
        "scalene", ((-10, 22, -16, 6, 7), (-60, 24, -16, 9, 9), (-120, 32, -22, 12, 12)), hu, suv
    )
    organs += make_column_pair("longus", ((30, 8, -3, 7, 4), (-40, 9, 1, 6, 4), (-110, 11, -18, 6, 4)), hu, suv)
    organs += make_column_pair("strap", ((-34, 10, 36, 8, 3), (-70, 11, 35, 10, 3), (-120, 12, 30, 11, 4)), hu, suv)
    organs += make_pair("masseter", (55, 24, -2), (7, 16, 28), hu, suv, rng)
    organs += make_pair("medial pterygoid", (38, 14, 0), (7, 13, 24), hu, suv, rng)
    organs += make_pair("lateral pterygoid", (38, 22, 30), (10, 15, 11), hu, suv, rng)
    organs += make_pair("temporalis", (57, 20, 58), (6, 26, 26), hu, suv, rng)
    return organs


def make_spine(spine: Column) -> list[Organ]:
    canal = tuple((z, x, y - ry - 8, 8.0, 7.0) for z, x, y, _, ry in SPINE_KNOTS)
    arch = tuple((z, x, y, rx + 4, ry + 4) for z, x, y, rx, ry in canal)
    spinous = tuple((z - 8, x, y - 20, 3.0, 12.0) for z, x, y, _, _ in canal)
    transverse = tuple((z, 19.0, y - 4, 8.0, 6.0) for z, _, y, _, _ in SPINE_KNOTS)
    organs = [
        Organ("discs", Column(SPINE_KNOTS), 85.0, 0.8),
        Organ("vertebrae", spine, Profile((0.0, 1.5, 3.0), (700.0, 500.0, 230.0)), 1.4),
        Organ("vertebral arch", Column(arch, 17.0, 0.7), 600.0, 1.1),
        Organ("spinous processes", Column(spinous, 17.0, 0.5), 500.0, 1.0),
    ]
    for side in (1, -1):
        knots = tuple((z, side * x, y, rx, ry) for z, x, y, rx, ry in transverse)
        organs.append(Organ("transverse processes", Column(knots, 17.0, 0.5), 450.0, 1.0))
    cord = tuple((z, x, y, 5.5, 4.5) for z, x, y, _, _ in canal)
    return [*organs, Organ("canal", Column(canal), 5.0, 0.8), Organ("cord", Column(cord), 38.0, 1.9)]


def make_vessels(rng: np.random.Generator, contrast: bool) -> list[Organ]:
    hu = float(rng.uniform(140, 200)) if contrast else 45.0
    carotid = (
        (40, 22, -4, 2.6, 2.6),
        (-25, 26, 0, 3.2, 3.2),
        (-85, 23, 2, 3.6, 3.6),
        (-150, 12, -4, 4, 4),
        (-200, 8, 6, 5, 5),
    )
    jugular = (
        (36, 26, -14, 4, 4),
        (-25, 33, -7, 5.5, 5.5),
        (-85, 30, 0, 6, 6),
        (-150, 20, 8, 6, 6),
        (-205, 16, 12, 6, 6),
    )
    return make_column_pair("carotid", carotid, hu, 1.5) + make_column_pair("jugular", jugular, hu - 10, 1.5)


def make_brown_fat(rng: np.random.Generator) -> list[Organ]:
    heat = float(rng.uniform(3.5, 7.0))
    organs = []
    for height, out, back in ((-60, 44, -34), (-85, 54, -34), (-105, 74, -38), (-118, 92, -40)):
        organs += make_pair("brown fat", (out, back, height), (10, 7, 9), FAT_HU, heat, rng)
    return organs


def make_torso(rng: np.random.Generator, girth: float, contrast: bool) -> list[Organ]:
    flesh = Column(
        tuple((z - 6, x, y, (rx - 12) * (0.5 + 0.5 * girth), (ry - 10) * girth) for z, x, y, rx, ry in TORSO_KNOTS[1:])
    )
    lung = ((-110, 30, -32, 4, 5), (-124, 40, -32, 22, 24), (-150, 58, -28, 40, 44), (-200, 74, -22, 54, 66))
    lung += ((-300, 82, -15, 62, 84), (-380, 84, -12, 64, 86), (-405, 84, -25, 40, 60))
    cage = tuple((z + (12 if i == 0 else 0), x, y, rx + 9, ry + 9) for i, (z, x, y, rx, ry) in enumerate(lung))
    blood = 150.0 if contrast else 42.0
    heart_suv = float(rng.choice([1.8, 3.0, 8.0]) * rng.uniform(0.85, 1.2))
    organs = [Organ("chest muscle", flesh, MUSCLE_HU, 0.75)]
    organs += [Organ("mediastinum", Ellipsoid((0, -5, -260), (42, 60, 135)), -85.0, 0.7)]
    organs += make_column_pair("chest wall", cage, 20.0, 0.7)
    organs += [Organ(rib.name, rib.shape, 450.0, 1.0) for rib in _ribs(cage)]
    organs += make_column_pair("lung", lung, -850.0, 0.4)
    organs += [
        Organ("heart", Ellipsoid((-18, 22, -290), (52, 44, 48)), blood, 1.6),
        Organ(
            "left ventricle",
            Ellipsoid((-36, 16, -300), (36, 32, 36)),
            Profile((0.0, 9.0, 11.0), (70.0, 70.0, blood)),
            Profile((0.0, 1.0, 10.0, 12.0), (heart_suv, heart_suv, heart_suv, 1.6)),
        ),
        Organ("liver", Ellipsoid((62, 0, -410), (96, 86, 52)), 65.0, 2.2),
        Organ("aorta", Column(((-205, -16, -28, 11, 11), (-450, -20, -36, 11, 11))), blood, 1.6),
        Organ("aortic arch", Capsule((-4, 12, -200), (-18, -26, -205), 11), blood, 1.6),
        Organ("ascending aorta", Capsule((-4, 12, -200), (2, 22, -262), 13), blood, 1.6),
        Organ("sternum", Capsule((0, 46, -128), (0, 84, -260), 6.5), BONE, 1.1),
    ]
    for side in (1, -1):
        organs += [
            Organ("bronchus", Capsule((side * 3, -30, -190), (side * 36, -34, -222), 6), AIR_HU, 0.3),
            Organ("clavicle", Capsule((side * 16, 34, -128), (side * 145, -8, -112), 6.5), BONE, 1.0),
            Organ("humerus", Ellipsoid((side * 164, -24, -140), (22, 22, 24)), BONE, 1.0),
            Organ("humerus shaft", Capsule((side * 170, -24, -150), (side * 178, -24, -330), 12), BONE, 1.0),
            Organ("scapula", Capsule((side * 128, -50, -130), (side * 92, -84, -235), 6), BONE, 1.0),
            Organ("scapula spine", Capsule((side * 150, -38, -122), (side * 70, -76, -150), 6), BONE, 1.0),
        ]
    return organs


def _ribs(cage: Knots) -> list[Organ]:
    wall = tuple((z, x, y, rx - 1, ry - 1) for z, x, y, rx, ry in cage)
    return [
        Organ("ribs", Column(tuple((z, side * x, y, rx, ry) for z, x, y, rx, ry in wall), 21.0, 0.5), 0.0, 0.0)
        for side in (1, -1)
    ]
