"""Tags for a picture that was made anew in another size: true of its pixels, with or without where it was taken."""

from __future__ import annotations

from typing import Any, Final

from skicyclerun.images.metadata import GPS_POINTER, PhotoTags, fit_to_pixels, group_of, orientation_of

# EXIF in pixels of the old picture, or of the sensor.
_STALE_EXIF: Final = frozenset(
    "Exif.Photo.SubjectArea Exif.Photo.SubjectLocation Exif.Photo.FocalPlaneXResolution "
    "Exif.Photo.FocalPlaneYResolution Exif.Photo.FocalPlaneResolutionUnit".split()
)
# Words of XMP names that speak of what hung behind the old picture and is not there any more: gain maps, a motion
# photo's movie, depth maps, further XMP. By words, since files name these name spaces as they like.
_STALE_XMP: Final = "hdrgm HDRGainMap Container.Directory MotionPhoto MicroVideo GDepth. GImage. HasExtendedXMP".split()
# Face regions, whose coordinates are those of the stored pixels (MWG 2.0, 5.7).
_REGIONS: Final = ("Xmp.mwg-rs.", "Xmp.MP.", "Xmp.MPRI.")

# IPTC-IIM 4.2: content location 2:26 and 2:27, place 2:90 to 2:101.
_IPTC_PLACES: Final = frozenset(
    f"Iptc.Application2.{name}"
    for name in "LocationCode LocationName City SubLocation ProvinceState CountryCode CountryName".split()
)
# IPTC Photo Metadata 2023.1 and the name spaces programs write the same into.
_XMP_PLACES: Final = tuple(
    f"Xmp.{name}"
    for name in (
        "photoshop.City photoshop.State photoshop.Country iptc.Location iptc.CountryCode iptcExt.LocationCreated "
        "iptcExt.LocationShown xmpDM.shotLocation dwc. acdsee.city acdsee.country acdsee.location"
    ).split()
)
#: Parts of XMP names that speak of a position, in whatever name space: `exif:GPSLatitude`, `drone-dji:GpsLongtitude`.
_POSITIONS: Final = ("gps", "latitude", "longitude", "longtitude", "altitude", "geotag")


def fit_to_new_pixels(
    exiv2: Any, tags: PhotoTags, width: int, height: int, *, now_srgb: bool, with_orientation: bool
) -> None:
    """Make the tags of another file true of these pixels, which are upright; all of them count as changed.

    `now_srgb`: the colours were converted. `with_orientation`: the format says by EXIF how it lies; else no word of it.
    """
    turned = orientation_of(tags.exif) != 1
    tags.count_all_as_changed()
    fit_to_pixels(exiv2, tags, width, height)
    tags.exif.erase_where(_STALE_EXIF.__contains__)
    tags.xmp.erase_where(lambda key: any(word in key for word in _STALE_XMP))
    if turned:
        tags.xmp.erase_where(lambda key: key.startswith(_REGIONS))
    if not with_orientation:
        tags.exif.remove("Exif.Image.Orientation")
    if now_srgb:
        if "Exif.Photo.ColorSpace" in tags.exif:
            tags.put("Exif.Photo.ColorSpace", exiv2.UShortValue(1))
        tags.xmp.erase_where(("Xmp.exif.ColorSpace", "Xmp.photoshop.ICCProfile").__contains__)


def remove_whereabouts(tags: PhotoTags) -> None:
    """Take out every position and every name of a place that has a field of its own.

    EXIF's GPS directory, XMP's positions at any depth and in any name space, the place fields of IPTC and XMP. The
    maker note goes too: cameras write towns and positions into theirs, and nobody can read them all. Places that
    somebody typed into a title, a description or a keyword stay, and so does the photographer's own address.
    """
    # What exiv2 can take apart of a maker note stands in groups named for the maker.
    tags.exif.erase_where(
        lambda key: group_of(key) not in ("Image", "Photo") or key in (GPS_POINTER, "Exif.Photo.MakerNote"),
    )
    tags.iptc.erase_where(_IPTC_PLACES.__contains__)
    tags.xmp.erase_where(_tells_place)


def _tells_place(key: str) -> bool:
    lowered = key.lower()
    return key.startswith(_XMP_PLACES) or any(word in lowered for word in _POSITIONS)
