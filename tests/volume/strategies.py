"""Random boxes and grids for property tests: oblique, flipped, with axes in any order."""

import numpy as np
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hngtv.volume.box import Box
from hngtv.volume.grid import Grid

positions_mm = st.floats(-500, 500, allow_subnormal=False)
spacings_mm = st.floats(0.5, 6)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    lower = np.array(draw(st.tuples(positions_mm, positions_mm, positions_mm)))
    size = np.array(draw(st.tuples(*[st.floats(0.1, 300)] * 3)))
    return Box.from_corners(lower, lower + size)


@st.composite
def grids(draw: st.DrawFn, max_angle_deg: float = 180) -> Grid:
    angles = draw(st.tuples(*[st.floats(-max_angle_deg, max_angle_deg)] * 3))
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    axes = axes[:, draw(st.permutations(range(3)))] * draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    affine = np.eye(4)
    affine[:3, :3] = axes * draw(st.tuples(spacings_mm, spacings_mm, spacings_mm))
    affine[:3, 3] = draw(st.tuples(positions_mm, positions_mm, positions_mm))
    return Grid.from_array(draw(st.tuples(*[st.integers(1, 40)] * 3)), affine)
