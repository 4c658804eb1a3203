"""Which series of a patient belong together: one CT, its PET and its outlines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hngtv.cases.dicom.find import Series
from hngtv.cases.dicom.names import OutlinePatterns, match_names
from hngtv.cases.dicom.outlines import OutlineFile, choose_outlines
from hngtv.cases.dicom.read import read_header, shown, tag_name, text_of, words_of
from hngtv.errors import InputError


@dataclass(frozen=True)
class Scan:
    """One CT with what belongs to it, and what is odd, one line each."""

    ct: Series
    pet: Series | None
    outlines: OutlineFile | None
    warnings: tuple[str, ...] = ()


def choose_scan(series: Sequence[Series], files: Sequence[OutlineFile], patterns: OutlinePatterns) -> Scan:
    """The CT, PET and outlines of one patient.

    CT and PET belong together by their frame of reference. If more than one frame holds both, the one with outlines is
    taken. In a frame, the CT that the outlines refer to is taken, else that of most slices.

    Raises:
        InputError: There is no CT, CT and PET lie in different frames, or the choice is not clear.
    """
    cts, pets = ([one for one in series if one.kind == kind] for kind in ("ct", "pet"))
    if not cts:
        raise InputError("has no CT series; expected one beside the PET or the outlines")
    if nameless := [one for one in (*cts, *pets) if not one.frame]:
        raise InputError(
            f"{nameless[0].name} lacks {tag_name('FrameOfReferenceUID')}, so what belongs to it is unknown"
        )
    gtv_files = [file for file in files if match_names(file.names.values(), patterns)]
    frame = _choose_frame(cts, pets, gtv_files)
    ct, ct_warnings = _choose_ct([one for one in cts if one.frame == frame], gtv_files)
    pet, pet_warnings = _choose_pet([one for one in pets if one.frame == frame])
    outlines, outline_warnings = choose_outlines(files, ct, patterns)
    return Scan(ct, pet, outlines, (*ct_warnings, *pet_warnings, *outline_warnings))


def find_split_patients(patients: Mapping[str, Sequence[Series]], ids: Mapping[str, str]) -> dict[str, str]:
    """Why a patient cannot be used whose CT and PET carry different patient ids, by patient id.

    Args:
        patients: Series by patient id.
        ids: Case id by patient id.
    """
    faults = {}
    for patient, series in patients.items():
        kinds = {one.kind for one in series}
        for have, lack in (("ct", "pet"), ("pet", "ct")):
            if have not in kinds or lack in kinds:
                continue
            frames = {one.frame for one in series if one.kind == have and one.frame}
            for other, theirs in patients.items():
                if other != patient and any(one.kind == lack and one.frame in frames for one in theirs):
                    faults[patient] = (
                        f"its {have.upper()} has the frame of reference of the {lack.upper()} of case {ids[other]}, "
                        f"whose {tag_name('PatientID')} differs; expected one id, so mend it if both are one patient"
                    )
    return faults


def _choose_frame(cts: Sequence[Series], pets: Sequence[Series], files: Sequence[OutlineFile]) -> str:
    with_ct, with_pet = ({one.frame for one in group} for group in (cts, pets))
    frames = with_ct & with_pet if pets else with_ct
    if not frames:
        raise InputError(
            f"CT ({', '.join(sorted(with_ct))}) and PET ({', '.join(sorted(with_pet))}) lie in different frames of "
            "reference; expected one, as of a PET/CT scanner, so register them first"
        )
    if len(frames) > 1:
        outlined = {frame for frame in frames if any(frame in file.frames for file in files)}
        if len(outlined) != 1:
            raise InputError(
                f"has {len(frames)} scans in different frames of reference, {len(outlined)} of them with GTV outlines; "
                "expected one scan to a patient, so keep the right one"
            )
        frames = outlined
    return frames.pop()


def _choose_ct(cts: Sequence[Series], files: Sequence[OutlineFile]) -> tuple[Series, tuple[str, ...]]:
    if len(cts) == 1:
        return cts[0], ()
    outlined = [one for one in cts if any(one.uid in file.series for file in files)]
    ct, why = _longest(outlined or cts)
    reasons = ", ".join(filter(None, ("which the outlines refer to" if outlined else "", why)))
    return ct, (f"has {len(cts)} CT series in one frame of reference; took {ct.name}, {reasons}",)


def _choose_pet(pets: Sequence[Series]) -> tuple[Series | None, tuple[str, ...]]:
    if not pets:
        return None, ("has no PET series in the frame of reference of its CT",)
    states = {one.uid: _is_corrected(one) for one in pets}
    corrected = [one for one in pets if states[one.uid]]
    untold = [one for one in pets if states[one.uid] is None]
    if not corrected and not untold:
        raise InputError(
            f"PET {pets[0].name} is not corrected for attenuation by {tag_name('CorrectedImage')} or "
            f"{tag_name('AttenuationCorrectionMethod')}; expected ATTN, so find the corrected series"
        )
    pet, why = _longest(corrected or untold)
    warnings = [] if corrected else [f"PET {pet.name} does not say whether it is corrected for attenuation"]
    if len(pets) > 1:
        n = len(pets) - len(corrected) - len(untold)
        words = "is corrected for attenuation" if corrected else "may be corrected for attenuation"
        reasons = ", ".join(filter(None, (f"which {words}", why)))
        warnings.append(f"has {len(pets)} PET series, {n} of them uncorrected; took {pet.name}, {reasons}")
    return pet, tuple(warnings)


def _is_corrected(pet: Series) -> bool | None:
    """Whether a PET is corrected for attenuation; None where it does not say."""
    header = read_header(pet.paths[0], ("CorrectedImage", "AttenuationCorrectionMethod"))
    done, method = words_of(header, "CorrectedImage"), text_of(header, "AttenuationCorrectionMethod").upper()
    if done:
        return "ATTN" in done
    return None if not method else method != "NONE"


def _longest(series: Sequence[Series]) -> tuple[Series, str]:
    """The one of most slices, of equals that of the last UID, and why it and no other; "" where there is no other."""
    longest = max(series, key=lambda one: (len(one.paths), one.uid))
    n_equal = sum(len(one.paths) == len(longest.paths) for one in series)
    if n_equal > 1:
        return longest, f"by its UID alone, of {n_equal} with as many slices"
    return longest, "which has most slices" if len(series) > 1 else ""


def lone_outlines(series: Sequence[Series]) -> str:
    """Why a patient with nothing but outlines cannot be used."""
    return (
        f"has outlines ({', '.join(shown(one.paths[0]) for one in series)}) and no CT under its PatientID (0010,0020)"
    )
