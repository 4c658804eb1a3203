"""Windows map HU and SUV to what the network sees."""

import numpy as np
import pytest

from hngtv.cases.intensity import window
from hngtv.config import IntensitySettings

LINEAR = IntensitySettings(ct_windows_hu=((-200, 200),), pet_max_suv=20, pet_scale="linear")
LOG = IntensitySettings(ct_windows_hu=((-200, 200),), pet_max_suv=20, pet_scale="log")


def image(hu: list[float], suv: list[float]) -> np.ndarray:
    return np.array([hu, suv], dtype=np.float32).reshape(2, -1, 1, 1)


def test_linear_window() -> None:
    result = window(image([-1024, -200, 0, 100, 3000], [-1, 0, 5, 20, 99]), LINEAR)
    np.testing.assert_allclose(result[0].ravel(), [-1, -1, 0, 0.5, 1])
    np.testing.assert_allclose(result[1].ravel(), [-1, -1, -0.5, 1, 1])
    assert result.dtype == np.float32


def test_log_window_keeps_ends_and_order() -> None:
    suv = window(image([0] * 4, [0, 2.5, 20, 50]), LOG)[1].ravel()
    np.testing.assert_allclose(suv, [-1, 2 * np.log(3.5) / np.log(21) - 1, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("settings", [LINEAR, LOG])
def test_input_is_left_alone(settings: IntensitySettings) -> None:
    before = image([500, 0], [30, 3])
    kept = before.copy()
    window(before, settings)
    np.testing.assert_array_equal(before, kept)


def test_each_ct_window_is_a_channel_and_pet_is_the_last() -> None:
    settings = IntensitySettings(ct_windows_hu=((-200, 200), (0, 1000)), pet_max_suv=20, pet_scale="linear")
    result = window(image([100], [10]), settings)
    assert settings.n_channels == 3
    np.testing.assert_allclose(result.ravel(), [0.5, -0.8, 0], atol=1e-6)
