"""Names in stores of version 1: settings and records with the old names in, the same with today's names out."""

from typing import Any

# Groups of settings, and the settings of no group.
_GROUPS = {
    "sampling": "labels",
    "fitting": "fit",
    "healing": "repair",
    "review": "check_resolution",
    "worst_mm": "max_error_mm",
}
_SETTINGS = {
    "labels": {
        "labels": "sign_method",
        "near": "near_points",
        "near_mm": "near_sigma_mm",
        "near_share": "near_sigma_share",
        "wide": "band_points",
        "wide_mm": "band_sigma_mm",
        "uniform": "uniform_points",
        "face": "face_share",
        "detail": "detail_share",
    },
    "fit": {
        "schedule": "lr_schedule",
        "points": "points_per_step",
        "rate": "lr",
        "distance": "distance_weight",
        "fade_mm": "distance_falloff_mm",
        "far": "distance_floor",
        "band_mm": "distance_band_mm",
    },
}
_SIGN_METHODS = {"winding": "winding-number"}
_RECORDS = {"bodies": "components"}


def rename_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a store of version 1 under today's names."""
    renamed = _rename(settings, _GROUPS)
    for group, names in _SETTINGS.items():
        renamed[group] = _rename(renamed[group], names)
    method = renamed["labels"]["sign_method"]
    renamed["labels"]["sign_method"] = _SIGN_METHODS.get(method, method)
    return renamed


def rename_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return a scan's record under today's names; records of today come back as they are."""
    return _rename(record, _RECORDS)


def _rename(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}
