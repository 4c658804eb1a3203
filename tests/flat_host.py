"""A host without anatomy, for tests of what is set into it."""

import numpy as np

from hngtv.cases.phantom_host import Host
from hngtv.cases.phantom_paint import BodyMap
from hngtv.cases.phantom_shapes import Ellipsoid, Waves
from hngtv.volume.box import Box
from hngtv.volume.grid import Grid

HOST_HU, HOST_SUV = 30, 1.0
VIEW = Box((-110.0, -110.0, -320.0), (110.0, 110.0, -60.0))


def make_flat_host(rng: np.random.Generator, size: str = "small") -> Host:
    """A body with one CT and one PET value, up to noise, that fills its 22 x 22 x 26 cm field of view and more."""
    del size
    ct_grid, pet_grid = (Grid.axis_aligned(VIEW, spacing) for spacing in ((3.0, 3.0, 3.0), (5.0, 5.0, 5.0)))
    still = Waves(np.zeros((1, 3)), np.zeros(1))
    body = BodyMap(np.zeros(3), np.eye(3), np.ones(3), (0.0, 0.0, 0.0), (still, still, still), wobble_mm=0.0)
    ct = (HOST_HU + rng.integers(-5, 6, ct_grid.shape)).astype(np.int16)
    pet = (HOST_SUV + rng.uniform(-0.1, 0.1, pet_grid.shape)).astype(np.float32)
    return Host(ct, ct_grid, pet, pet_grid, body, Ellipsoid((0, 0, -200), (900, 900, 900)), {"centre": "flat"})
