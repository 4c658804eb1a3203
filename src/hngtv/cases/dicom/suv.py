"""From the values of a PET series to SUV by body weight, with every tag that was used."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DT, TM

from hngtv.cases.dicom.read import items_of, number_of, shown, tag_name, text_of, words_of
from hngtv.errors import InputError

WEIGHT_KG = (2.0, 400.0)
DOSE_BQ = (1e6, 1e10)
HALF_LIFE_S = (60.0, 1e6)
"""Values beyond these are in another unit, or none. Source: our choice; 18F has 6586 s, doses are 20 to 800 MBq."""
MAX_ELAPSED_S = 12 * 3600.0
"""Longest time from injection to scan that is believed: six half-lives of 18F. Source: our choice."""
MAX_HALF_LIVES = 10
"""After more, a thousandth of the activity is left. Source: our choice."""
HALF_A_DAY = timedelta(hours=12)
"""An acquisition is taken to be no farther than this from SeriesTime where only the series has a date. Our choice."""
DISAGREE_S = 60.0
"""Two times of one injection that differ by more are worth a warning. Source: our choice, as below."""
EARLY_SERIES_S = 60.0
"""A series time before the first acquisition by more than this is worth a warning: 0.6 % of SUV for 18F. Our choice."""
PHILIPS_GROUP = 0x7053
PHILIPS_CREATOR = "Philips PET Private Group"
PHILIPS_SUV = 0x00
PHILIPS_BQML = 0x09
"""(7053,xx00) turns values into SUV by body weight, (7053,xx09) into Bq/mL. Source: Philips' conformance statements."""


@dataclass(frozen=True)
class Suv:
    """How values, after rescaling, become SUV.

    Attributes:
        factor: What they are multiplied by.
        rule: How it was found, in words.
        inputs: Each tag that was used, by keyword, and what followed from them.
        warnings: What is odd but usable.
    """

    factor: float
    rule: str
    inputs: dict[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass
class _Tags:
    """The tags of all slices of a series; remembers those that were asked for."""

    headers: Sequence[Dataset]
    used: dict[str, Any] = field(default_factory=dict)

    def text(self, keyword: str) -> str:
        """The one value that all slices have; "" for none."""
        values: dict[str, list[Dataset]] = {}
        for header in self.headers:
            values.setdefault(text_of(header, keyword), []).append(header)
        if len(values) > 1:
            rarest = min(values, key=lambda value: len(values[value]))
            file = shown(Path(getattr(values[rarest][0], "filename", None) or "one slice"))
            raise InputError(
                f"the PET has {len(values)} values of {tag_name(keyword)} in one series, {rarest!r} in {file}; "
                "expected one, so copy that file again from its source"
            )
        (self.used[keyword],) = values
        return self.used[keyword]

    def number(self, keyword: str, limits: tuple[float, float], unit: str, item: Dataset | None = None) -> float:
        """A number within limits, of the series or of an item of its first slice."""
        if item is None:
            self.text(keyword)
        value = number_of(self.headers[0] if item is None else item, keyword, "the PET")
        self.used[keyword] = value
        if not limits[0] <= value <= limits[1]:
            raise InputError(
                f"the PET has {tag_name(keyword)} = {value:g}; expected {limits[0]:g} to {limits[1]:g} {unit}, so "
                "SUV cannot be had until the tag is mended"
            )
        return value


def find_suv(headers: Sequence[Dataset]) -> Suv:
    """The factor from rescaled values to SUV by body weight, from the tags of all slices.

    Raises:
        InputError: The unit is none of BQML, GML and CNTS, or a tag that is needed is missing, implausible, or not the
            same in all slices; the line names the tag.
    """
    tags = _Tags(headers)
    units = tags.text("Units").upper()
    if units == "GML":
        kind = tags.text("SUVType").upper()
        if kind not in ("", "BW"):
            raise InputError(f"the PET has {tag_name('SUVType')} = {kind}; expected BW, the SUV by body weight")
        return Suv(1.0, "values are SUV by body weight already (GML)", tags.used)
    if units == "BQML":
        return _from_activity(tags, 1.0, "Bq/mL")
    if units == "CNTS":
        return _from_counts(tags)
    raise InputError(f"the PET has {tag_name('Units')} = {units or 'nothing'}; expected BQML, GML or CNTS")


def _from_counts(tags: _Tags) -> Suv:
    """Philips writes counts with private factors."""
    factor = _philips(tags, PHILIPS_SUV)
    if factor is not None:
        return Suv(factor, "counts times Philips' SUV factor", tags.used)
    factor = _philips(tags, PHILIPS_BQML)
    if factor is not None:
        return _from_activity(tags, factor, "counts times Philips' activity factor")
    raise InputError(
        f"the PET has {tag_name('Units')} = CNTS and neither of Philips' factors (7053,1000) and (7053,1009); export "
        "it in Bq/mL, or with its private tags"
    )


def _philips(tags: _Tags, element: int) -> float | None:
    """A private factor of Philips; None where it is absent or 0."""
    name, values = f"(7053,10{element:02X})", set()
    for header in tags.headers:
        try:
            block = header.private_block(PHILIPS_GROUP, PHILIPS_CREATOR)
            value = block[element].value if element in block else None
        except KeyError:
            value = None
        # Of an unknown kind in the file, the number stands there as bytes.
        values.add(value.decode("ascii", "replace").strip("\0 ") if isinstance(value, bytes) else str(value or ""))
    if len(values) > 1:
        raise InputError(f"the PET has {len(values)} values of Philips' factor {name} in one series; expected one")
    text = values.pop()
    try:
        factor = float(text or 0.0)
    except ValueError:
        factor = float("nan")
    if not 0 <= factor < float("inf"):
        raise InputError(f"the PET has Philips' factor {name} = {text!r}; expected a positive number")
    if factor == 0:
        return None
    tags.used[name] = factor
    return factor


def _from_activity(tags: _Tags, to_bqml: float, words: str) -> Suv:
    """SUV = activity per mL / (decayed dose / weight in g), 1 mL of the body taken as 1 g."""
    corrected = words_of(tags.headers[0], "CorrectedImage")
    tags.used["CorrectedImage"] = list(corrected)
    if corrected and "DECY" not in corrected:
        raise InputError(f"the PET has {tag_name('CorrectedImage')} without DECY; expected decay-corrected values")
    items = items_of(tags.headers[0], "RadiopharmaceuticalInformationSequence")
    if len(items) != 1:
        name = tag_name("RadiopharmaceuticalInformationSequence")
        raise InputError(f"the PET has {len(items)} items in {name}; expected one injection")
    weight_g = 1000 * tags.number("PatientWeight", WEIGHT_KG, "kg")
    dose = tags.number("RadionuclideTotalDose", DOSE_BQ, "Bq", items[0])
    half_life = tags.number("RadionuclideHalfLife", HALF_LIFE_S, "s", items[0])
    elapsed_s, warnings = _elapsed(tags, items[0])
    if elapsed_s > MAX_HALF_LIVES * half_life:
        raise InputError(
            f"the PET has {tag_name('RadionuclideHalfLife')} = {half_life:g} s and began {elapsed_s:.0f} s after the "
            f"injection; expected at most {MAX_HALF_LIVES} half-lives (6586 s for 18F), so mend the tag"
        )
    decayed = dose * 2 ** (-elapsed_s / half_life)
    tags.used |= {"elapsed_s": elapsed_s, "decayed_dose_bq": decayed}
    rule = f"{words}, times weight / (dose x 2^(-elapsed / half-life))"
    return Suv(to_bqml * weight_g / decayed, rule, tags.used, warnings)


def _elapsed(tags: _Tags, injection: Dataset) -> tuple[float, tuple[str, ...]]:
    """Seconds over which the dose decayed until the moment that the values stand for, and warnings."""
    correction = tags.text("DecayCorrection").upper()
    if correction == "ADMIN":
        return 0.0, ()
    if correction != "START":
        name = tag_name("DecayCorrection")
        raise InputError(f"the PET has {name} = {correction or 'nothing'}; expected START or ADMIN")
    start = min(_acquired(header) for header in tags.headers)
    given, warnings = _injected(tags, injection, start)
    tags.used |= {"first_acquisition": start.isoformat(), "injection": given.isoformat()}
    elapsed_s = (start - given).total_seconds()
    if not 0 <= elapsed_s <= MAX_ELAPSED_S:
        raise InputError(
            f"the PET was acquired {elapsed_s / 3600:.2f} h after the injection by {tag_name('AcquisitionTime')} and "
            f"{tag_name('RadiopharmaceuticalStartDateTime')} or {tag_name('RadiopharmaceuticalStartTime')}; expected "
            f"0 to {MAX_ELAPSED_S / 3600:g} h, so mend the dates"
        )
    return elapsed_s, (*warnings, *_early_series(tags, start))


def _early_series(tags: _Tags, start: datetime) -> tuple[str, ...]:
    """A warning where the series begins well before the first acquisition; a later series time means nothing."""
    date, time = text_of(tags.headers[0], "SeriesDate"), text_of(tags.headers[0], "SeriesTime")
    tags.used |= {"SeriesDate": date, "SeriesTime": time}
    try:
        ahead_s = (start - _moment(date, time)).total_seconds()
    except (ValueError, TypeError):
        return ()
    if ahead_s <= EARLY_SERIES_S:
        return ()
    return (f"SeriesTime is {ahead_s:.0f} s before the first acquisition, from which the decay was reckoned",)


def _acquired(header: Dataset) -> datetime:
    """When a slice was acquired."""
    time = text_of(header, "AcquisitionTime")
    for keyword in ("AcquisitionDate", "SeriesDate"):
        if time and (date := text_of(header, keyword)):
            moment = _parse(date, time, "AcquisitionTime")
            return moment if keyword == "AcquisitionDate" else _near_series(header, moment)
    if text_of(header, "AcquisitionDateTime"):
        return _parse_whole(header, text_of(header, "AcquisitionDateTime"), "AcquisitionDateTime")
    raise InputError(f"the PET lacks {tag_name('AcquisitionTime')}; decay correction START needs it")


def _near_series(header: Dataset, moment: datetime) -> datetime:
    """A time of day on the date of its series, moved over midnight to where it is nearest to SeriesTime."""
    try:
        off = moment - _moment(text_of(header, "SeriesDate"), text_of(header, "SeriesTime"))
    except (ValueError, TypeError):
        return moment
    return moment - timedelta(days=(off > HALF_A_DAY) - (off < -HALF_A_DAY))


def _injected(tags: _Tags, item: Dataset, start: datetime) -> tuple[datetime, tuple[str, ...]]:
    """When the dose was given, and warnings: its date and time, else the last such time of day before `start`."""
    keyword, other = "RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime"
    whole, time = text_of(item, keyword), text_of(item, other)
    tags.used |= {name: text for name, text in ((keyword, whole), (other, time)) if text}
    given = _parse_whole(tags.headers[0], whole, keyword) if _has_minutes(whole) else None
    if not time:
        if given is None:
            raise InputError(f"the PET lacks {tag_name(other)}, the injection's; decay correction START needs it")
        return given, ()
    if given is None:
        by_time = _parse(start.strftime("%Y%m%d"), time, other)
        return (by_time - timedelta(days=1) if by_time > start else by_time), ()
    try:
        apart_s = abs((given - _moment(given.strftime("%Y%m%d"), time)).total_seconds())
    except (ValueError, TypeError):
        return given, ()
    if apart_s <= DISAGREE_S:
        return given, ()
    return given, (f"the injection's {keyword} and {other} are {apart_s:.0f} s apart; the first was taken",)


def _has_minutes(text: str) -> bool:
    """Whether a date and time goes down to minutes; a date alone would be read as midnight."""
    return len(re.split(r"[.+-]", text)[0]) >= len("YYYYMMDDHHMM")


def _parse(date: str, time: str, keyword: str) -> datetime:
    try:
        return _moment(date, time)
    except (ValueError, TypeError):
        raise InputError(f"the PET has {tag_name(keyword)} = {time[:30]!r} on {date[:30]!r}; expected a time") from None


def _moment(date: str, time: str) -> datetime:
    day, clock = DA(date), TM(time)
    if day is None or clock is None:
        raise ValueError
    return datetime.combine(day, clock)


def _parse_whole(header: Dataset, text: str, keyword: str) -> datetime:
    """A date and time in one tag, as a clock at the scanner shows it."""
    try:
        moment = DT(text)
        if moment is None:
            raise ValueError
        zone = text_of(header, "TimezoneOffsetFromUTC")
        if moment.tzinfo is not None and zone:
            shift = moment.utcoffset() or timedelta()
            here = datetime.strptime(zone, "%z").utcoffset() or timedelta()
            return datetime.combine(moment.date(), moment.time()) - shift + here
        return datetime.combine(moment.date(), moment.time())
    except (ValueError, TypeError):
        raise InputError(f"the PET has {tag_name(keyword)} = {text[:40]!r}; expected a date and time") from None
