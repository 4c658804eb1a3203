"""SUV against the formula done by hand: value x weight in g / (dose x 2^(-elapsed / half-life))."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from hngtv.cases.dicom.suv import Suv, find_suv
from hngtv.errors import InputError
from tests.tiny_dicom import write_pet

AFTER_ONE_HOUR = 70_000 / (3.5e8 * 2 ** (-3600 / 6586.2))
AT_INJECTION = 70_000 / 3.5e8
Edit = Callable[[int, Dataset], None]


def suv_after(folder: Path, edit: Edit | None = None) -> Suv:
    return find_suv([dcmread(path) for path in write_pet(folder, edit=edit)])


def injection_of(dataset: Dataset) -> Dataset:
    return dataset.RadiopharmaceuticalInformationSequence[0]


def test_start(tmp_path: Path) -> None:
    suv = suv_after(tmp_path)
    assert suv.factor == pytest.approx(AFTER_ONE_HOUR, rel=1e-9)
    assert pytest.approx(0.000292, abs=1e-6) == AFTER_ONE_HOUR
    assert suv.inputs["elapsed_s"] == 3600
    assert suv.inputs["PatientWeight"] == 70
    assert suv.inputs["RadionuclideTotalDose"] == 3.5e8
    assert suv.inputs["RadionuclideHalfLife"] == 6586.2
    assert suv.inputs["first_acquisition"] == "2020-01-02T11:00:00"
    assert suv.inputs["injection"] == "2020-01-02T10:00:00"
    assert suv.warnings == ()


def test_admin_needs_no_time(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.DecayCorrection = "ADMIN"
        del injection_of(dataset).RadiopharmaceuticalStartTime

    assert suv_after(tmp_path, edit).factor == pytest.approx(AT_INJECTION, rel=1e-9)


def test_a_later_series_time_changes_nothing(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.SeriesTime = "130000"

    assert suv_after(tmp_path, edit).factor == pytest.approx(AFTER_ONE_HOUR, rel=1e-9)


def test_an_earlier_series_time_is_told(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.SeriesTime = "105500"

    suv = suv_after(tmp_path, edit)
    assert suv.factor == pytest.approx(AFTER_ONE_HOUR, rel=1e-9)
    assert "300 s before the first acquisition" in suv.warnings[0]


def test_the_earliest_bed_counts(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.AcquisitionTime = f"11{(4 - z) * 3:02d}00.5"

    expected = 70_000 / (3.5e8 * 2 ** (-3600.5 / 6586.2))
    assert suv_after(tmp_path, edit).factor == pytest.approx(expected, rel=1e-9)


def test_beds_across_midnight(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        late = z < 2
        dataset.AcquisitionDate = "20200102" if late else "20200103"
        dataset.AcquisitionTime = f"23{56 + 2 * z}00" if late else f"00{2 * z:02d}00"
        injection_of(dataset).RadiopharmaceuticalStartTime = "225600"

    assert suv_after(tmp_path, edit).inputs["elapsed_s"] == 3600


def test_injection_before_midnight(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.AcquisitionTime = "002000"
        injection_of(dataset).RadiopharmaceuticalStartTime = "232000"

    assert suv_after(tmp_path, edit).factor == pytest.approx(AFTER_ONE_HOUR, rel=1e-9)


def test_the_date_of_the_injection_goes_first(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.AcquisitionTime = "002000"
        injection_of(dataset).RadiopharmaceuticalStartDateTime = "20200101232000.000000"
        injection_of(dataset).RadiopharmaceuticalStartTime = "111111"

    assert suv_after(tmp_path, edit).factor == pytest.approx(AFTER_ONE_HOUR, rel=1e-9)


def test_a_date_without_a_time_is_not_midnight(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        injection_of(dataset).RadiopharmaceuticalStartDateTime = "20200102"

    assert suv_after(tmp_path, edit).factor == pytest.approx(AFTER_ONE_HOUR, rel=1e-9)

    def edit_both(z: int, dataset: Dataset) -> None:
        edit(z, dataset)
        del injection_of(dataset).RadiopharmaceuticalStartTime

    with pytest.raises(InputError, match="lacks RadiopharmaceuticalStartTime"):
        suv_after(tmp_path / "both", edit_both)


def test_two_times_of_one_injection_are_told(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        injection_of(dataset).RadiopharmaceuticalStartDateTime = "202001021010"

    suv = suv_after(tmp_path, edit)
    assert suv.inputs["elapsed_s"] == 3000
    assert "are 600 s apart; the first was taken" in suv.warnings[0]


@pytest.mark.parametrize(("date", "time"), [("20200102", "235600"), ("20200103", "000600")])
def test_a_scan_across_midnight_without_acquisition_dates(tmp_path: Path, date: str, time: str) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        del dataset.AcquisitionDate
        dataset.SeriesDate, dataset.SeriesTime = date, time
        dataset.AcquisitionTime = ("235600", "235800", "000000", "000200", "000400")[z]
        injection_of(dataset).RadiopharmaceuticalStartTime = "225600"

    suv = suv_after(tmp_path, edit)
    assert suv.inputs["first_acquisition"] == "2020-01-02T23:56:00"
    assert suv.inputs["elapsed_s"] == 3600


def test_time_zones_are_brought_to_the_scanner(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.TimezoneOffsetFromUTC = "+0200"
        injection_of(dataset).RadiopharmaceuticalStartDateTime = "20200102090000+0100"

    assert suv_after(tmp_path, edit).factor == pytest.approx(AFTER_ONE_HOUR, rel=1e-9)


def test_without_an_acquisition_date_that_of_the_series(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        del dataset.AcquisitionDate

    assert suv_after(tmp_path, edit).factor == pytest.approx(AFTER_ONE_HOUR, rel=1e-9)


@pytest.mark.parametrize("kind", [None, "BW"])
def test_gml_passes_through(tmp_path: Path, kind: str | None) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.Units, dataset.SUVType = "GML", kind
        del dataset.PatientWeight

    assert suv_after(tmp_path, edit).factor == 1


def _philips(suv: str | None, activity: str | None, creator: str = "Philips PET Private Group") -> Edit:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.Units = "CNTS"
        block = dataset.private_block(0x7053, creator, create=True)
        for element, value in ((0x00, suv), (0x09, activity)):
            if value is not None:
                block.add_new(element, "DS", value)

    return edit


def test_counts_with_philips_suv_factor(tmp_path: Path) -> None:
    suv = suv_after(tmp_path, _philips("0.000551", "2.5"))
    assert suv.factor == pytest.approx(0.000551)
    assert suv.inputs["(7053,1000)"] == 0.000551


@pytest.mark.parametrize("first", [None, "0"])
def test_counts_with_philips_activity_factor(tmp_path: Path, first: str | None) -> None:
    assert suv_after(tmp_path, _philips(first, "2.5")).factor == pytest.approx(2.5 * AFTER_ONE_HOUR, rel=1e-9)


def test_a_philips_factor_of_unknown_kind_is_read_from_its_bytes(tmp_path: Path) -> None:
    def edit(z: int, dataset: Dataset) -> None:
        dataset.Units = "CNTS"
        dataset.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "UN", b"0.000551 ")

    assert suv_after(tmp_path, edit).factor == pytest.approx(0.000551)


def _set(**tags: object) -> Edit:
    def edit(z: int, dataset: Dataset) -> None:
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)

    return edit


def _inject(**tags: object) -> Edit:
    def edit(z: int, dataset: Dataset) -> None:
        for keyword, value in tags.items():
            setattr(injection_of(dataset), keyword, value)

    return edit


def _two_injections(z: int, dataset: Dataset) -> None:
    dataset.RadiopharmaceuticalInformationSequence.append(Dataset())


def _two_weights(z: int, dataset: Dataset) -> None:
    dataset.PatientWeight = str(70 + z)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_set(PatientWeight=None), r"lacks PatientWeight \(0010,1030\)"),
        (_set(PatientWeight="0"), r"PatientWeight \(0010,1030\) = 0; expected 2 to 400 kg"),
        (_set(PatientWeight="70000"), r"PatientWeight \(0010,1030\) = 70000"),
        (_two_weights, r"5 values of PatientWeight \(0010,1030\) in one series, '70' in .*; expected one"),
        (_inject(RadionuclideTotalDose=None), r"lacks RadionuclideTotalDose \(0018,1074\)"),
        (_inject(RadionuclideTotalDose="350"), r"RadionuclideTotalDose \(0018,1074\) = 350; expected 1e\+06"),
        (_inject(RadionuclideHalfLife=None), r"lacks RadionuclideHalfLife \(0018,1075\)"),
        (_inject(RadionuclideHalfLife="0"), r"RadionuclideHalfLife \(0018,1075\) = 0"),
        (
            _inject(RadionuclideHalfLife="109.8"),
            r"HalfLife \(0018,1075\) = 109.8 s and began 3600 s after .* 10 half-lives",
        ),
        (_inject(RadiopharmaceuticalStartTime=None), r"lacks RadiopharmaceuticalStartTime \(0018,1072\)"),
        (_inject(RadiopharmaceuticalStartTime="noon"), r"RadiopharmaceuticalStartTime \(0018,1072\) = 'noon'"),
        (
            _inject(RadiopharmaceuticalStartDateTime="20200102120000"),
            r"-1.00 h after .*RadiopharmaceuticalStartDateTime \(0018,1078\)",
        ),
        (_inject(RadiopharmaceuticalStartDateTime="20191231100000"), r"49.00 h after the injection"),
        (_set(AcquisitionTime=None), r"lacks AcquisitionTime \(0008,0032\)"),
        (_set(DecayCorrection="NONE"), r"DecayCorrection \(0054,1102\) = NONE"),
        (_set(DecayCorrection=None), r"DecayCorrection \(0054,1102\) = nothing"),
        (_set(CorrectedImage=["ATTN"]), r"CorrectedImage \(0028,0051\) without DECY"),
        (_set(RadiopharmaceuticalInformationSequence=[]), r"0 items in Radiopharmaceutical"),
        (_two_injections, r"2 items in Radiopharmaceutical"),
        (_set(Units="PROPCPS"), r"Units \(0054,1001\) = PROPCPS"),
        (_set(Units=None), r"Units \(0054,1001\) = nothing"),
        (_set(Units="GML", SUVType="LBM"), r"SUVType \(0054,1006\) = LBM"),
        (_philips(None, None), r"neither of Philips' factors \(7053,1000\) and \(7053,1009\)"),
        (_philips("0.5", None, creator="Another vendor"), r"neither of Philips' factors"),
        (_philips("-3", None), r"\(7053,1000\) = '-3'"),
    ],
)
def test_what_is_missing_or_wrong_is_named(tmp_path: Path, edit: Edit, words: str) -> None:
    with pytest.raises(InputError, match=words):
        suv_after(tmp_path, edit)
