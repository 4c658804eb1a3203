"""Organs of the head and throat: brain, skull, face, airway, glands, tonsils.

Atlas millimetres; Source: our choice, an average adult.
"""

from __future__ import annotations

import numpy as np

from hngtv.cases.phantom_paint import Organ, Profile
from hngtv.cases.phantom_shapes import Arch, Capsule, Column, Ellipsoid, Grown
from hngtv.cases.phantom_tissue import (
    AIR_HU,
    BONE,
    FAT_HU,
    MUSCLE_HU,
    make_pair,
)

AIRWAY_KNOTS = (  # z, x, y, rx, ry: nasopharynx, oropharynx, glottis, trachea
    (34.0, 0.0, 10.0, 9.0, 6.0),
    (25.0, 0.0, 8.5, 12.5, 6.5),
    (10.0, 0.0, 8.0, 12.0, 5.0),
    (-10.0, 0.0, 9.5, 12.0, 6.0),
    (-25.0, 0.0, 12.0, 13.0, 7.0),
    (-40.0, 0.0, 15.0, 10.0, 8.0),
    (-57.0, 0.0, 18.0, 4.0, 9.5),
    (-70.0, 0.0, 17.0, 8.0, 8.5),
    (-100.0, 0.0, 6.0, 9.0, 9.0),
    (-130.0, 0.0, -8.0, 9.0, 9.0),
    (-195.0, 0.0, -30.0, 9.0, 9.0),
)


def make_skull_and_brain(rng: np.random.Generator) -> list[Organ]:
    diploe = Profile((0.0, 2.0, 3.5, 5.0), (1100.0, 1000.0, 500.0, 1000.0))
    cortex = float(np.clip(rng.normal(9.5, 1.6), 6.5, 13.0))
    grey = Profile((0.0, 1.0, 9.0, 13.0), (cortex, cortex, cortex, 0.5 * cortex))
    organs = [
        Organ("skull", Ellipsoid((0, -12, 99), (72, 92, 60)), diploe, 1.0),
        Organ("posterior fossa bone", Ellipsoid((0, -48, 52), (54, 42, 28)), BONE, 1.0),
        Organ("skull base", Ellipsoid((0, 6, 46), (28, 24, 9)), BONE, 1.0),
        Organ("liquor", Ellipsoid((0, -12, 99), (66, 86, 54)), 10.0, 1.0),
        Organ("cerebellum", Ellipsoid((0, -48, 54), (47, 34, 22)), 36.0, 0.75 * cortex),
        Organ("brain right", Ellipsoid((31, -12, 99), (33, 82, 50)), 35.0, grey),
        Organ("brain left", Ellipsoid((-31, -12, 99), (33, 82, 50)), 35.0, grey),
        Organ("brainstem", Capsule((0, -20, 66), (0, -30, 28), 10), 34.0, 0.55 * cortex),
    ]
    organs += make_pair("basal ganglia", (20, -4, 96), (10, 20, 14), 38.0, 0.95 * cortex, rng)
    organs += make_pair("ventricle", (8, -16, 108), (4, 24, 8), 10.0, 1.0, rng)
    for side in (1, -1):
        organs.append(Organ("petrous", Capsule((side * 16, -6, 44), (side * 56, -26, 42), 7), BONE, 1.0))
    cells = Profile((0.0, 2.5, 4.0), (700.0, 500.0, -350.0))
    organs += make_pair("mastoid", (54, -32, 34), (11, 13, 17), cells, 0.8, rng)
    organs.append(Organ("sphenoid sinus", Ellipsoid((0, 24, 50), (12, 9, 7)), AIR_HU, 0.3))
    return organs


def make_face(rng: np.random.Generator) -> list[Organ]:
    thick = Profile((0.0, 1.5, 3.0), (1000.0, 900.0, 350.0))
    organs = [Organ("mid face", Ellipsoid((0, 52, 36), (44, 26, 26)), 20.0, 0.8)]
    organs += make_pair("zygoma", (44, 55, 44), (11, 12, 8), BONE, 1.0, rng)
    organs += make_pair("orbit wall", (32, 62, 66), (20, 23, 19), 500.0, 1.0, rng)
    organs += make_pair("orbit", (32, 66, 66), (18, 24, 17), FAT_HU, 0.5, rng)
    organs += make_pair("globe", (32, 76, 66), (12, 12, 12), 12.0, 0.8, rng)
    organs += make_pair("eye muscles", (31, 56, 66), (7, 10, 7), 45.0, 2.6, rng)
    organs += make_pair("antrum wall", (27, 52, 38), (15, 18, 17), 500.0, 0.9, rng)
    organs += make_pair("antrum", (27, 52, 38), (13, 16, 15), AIR_HU, 0.3, rng)
    organs += make_pair("ethmoid", (7, 50, 64), (6, 20, 10), -600.0, 0.4, rng)
    organs += make_pair("frontal sinus", (10, 74, 88), (8, 4, 7), AIR_HU, 0.3, rng)
    organs += make_pair("nose", (6, 51, 36), (4.5, 34, 17), AIR_HU, 0.3, rng)
    organs += make_pair("turbinate", (7, 54, 32), (2.2, 24, 6), 45.0, 1.6, rng)
    organs += [
        Organ("septum", Ellipsoid((0, 50, 38), (1.8, 34, 18)), 250.0, 0.7),
        Organ("palate", Ellipsoid((0, 46, 18), (25, 30, 3)), 700.0, 0.9),
        Organ("maxilla", Arch(14, (27, 50), 4, (8, 24)), thick, 1.0),
        Organ("mouth floor", Ellipsoid((0, 44, -20), (30, 28, 12)), MUSCLE_HU, 1.1),
        Organ("tongue", Ellipsoid((0, 44, 0), (24, 31, 15)), 60.0, float(rng.uniform(1.2, 2.0))),
        Organ("tongue base", Ellipsoid((0, 30, -14), (18, 14, 15)), 60.0, 1.5),
        Organ("soft palate", Ellipsoid((0, 19, 15), (14, 10, 5)), MUSCLE_HU, 1.4),
        Organ("mandible", Arch(8, (42, 60), 4.5, (-30, -8)), thick, 1.0),
        Organ("lower teeth", Arch(16, (25, 51), 3.5, (-9, 0), n_gaps=10), 1700.0, 0.8),
        Organ("upper teeth", Arch(16, (26, 53), 3.5, (1, 11), n_gaps=10), 1700.0, 0.8),
    ]
    organs += make_pair("ramus", (48, 10, 8), (4, 14, 34), thick, 1.0, rng, power=3)
    return organs


def make_airway_walls(rng: np.random.Generator, airway: Column) -> list[Organ]:
    gullet = (
        (-72, 0, 0, 8, 4),
        (-100, -4, -9, 7, 5),
        (-130, -6, -24, 7, 5),
        (-200, -4, -42, 7, 6),
        (-450, -6, -36, 7, 6),
    )
    cords = float(rng.uniform(1.8, 5.0))
    organs = [
        Organ("oesophagus", Column(gullet), 40.0, 1.7),
        Organ("pharynx wall", Grown(airway, 4.0), MUSCLE_HU, 1.3),
        Organ("thyroid cartilage", Arch(8, (17, 24), 1.6, (-66, -42)), 220.0, 1.0),
        Organ("hyoid", Arch(6, (20, 27), 2.0, (-34, -29)), 450.0, 1.0),
        Organ("cricoid", Column(((-66, 0, 16, 12, 12), (-78, 0, 13, 12, 12))), 230.0, 1.1),
        Organ("inner larynx", Column(((-44, 0, 16, 13, 11), (-66, 0, 17, 11, 12))), MUSCLE_HU, 1.5),
    ]
    organs += make_pair("vocal cord", (6, 19, -57), (4, 10, 4), 65.0, cords, rng)
    organs.append(Organ("airway", airway, AIR_HU, 0.35))
    for side in (1, -1):
        organs.append(Organ("choana", Capsule((side * 7, 32, 30), (side * 6, 12, 28), 4.5), AIR_HU, 0.35))
    organs.append(Organ("epiglottis", Ellipsoid((0, 20, -32), (8, 2, 11)), MUSCLE_HU, 1.4))
    return organs


def make_glands(rng: np.random.Generator, contrast: bool) -> list[Organ]:
    parotid, submandibular, thyroid = rng.uniform((1.6, 2.2, 1.1), (3.2, 4.5, 2.2))
    organs = make_pair("parotid", (53, -5, 4), (9, 15, 24), 15.0 if contrast else -15.0, float(parotid), rng)
    organs += make_pair(
        "submandibular", (32, 26, -30), (9, 14, 11), 75.0 if contrast else 50.0, float(submandibular), rng
    )
    organs += make_pair("sublingual", (14, 54, -14), (5, 13, 5), 60.0, 0.8 * float(submandibular), rng)
    organs += make_pair("thyroid", (16, 11, -86), (8, 10, 20), 160.0 if contrast else 110.0, float(thyroid), rng)
    for _ in range(rng.integers(2, 6)):  # reactive nodes, too small to be called tumour
        side, height = rng.choice([-1.0, 1.0]), rng.uniform(-80, -10)
        place = (side * rng.uniform(33, 42), rng.uniform(-20, 4), height)
        organs.append(Organ("reactive node", Ellipsoid(place, (4, 4, 6)), 60.0, float(rng.uniform(1.5, 3.0))))
    return organs


def make_tonsils(rng: np.random.Generator) -> list[Organ]:
    heat = float(np.clip(rng.lognormal(np.log(4.2), 0.3), 2.2, 7.5))
    organs = make_pair("tonsil", (16, 13, 0), (5.5, 8, 12), 65.0, heat, rng)
    organs.append(Organ("lingual tonsil", Ellipsoid((0, 20, -18), (14, 4, 8)), 65.0, 0.75 * heat))
    organs.append(Organ("adenoid", Ellipsoid((0, 2, 33), (11, 5, 6)), 60.0, 0.8 * heat))
    return organs
