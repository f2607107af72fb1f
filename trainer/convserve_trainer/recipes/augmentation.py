"""What a recipe says of random changes of the pictures that are trained on."""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Share: TypeAlias = Annotated[float, Meta(ge=0, lt=1)]
Amount: TypeAlias = Annotated[float, Meta(ge=0)]


class Augmentation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much a picture is changed at random whenever it is trained on; nothing by default.

    All amounts are drawn evenly from both directions up to the value.

    Attributes:
        rotation: degrees.
        shear: degrees.
        zoom: log of the factor: 0.1 is from 0.9 to 1.1, of both sides alike.
        stretch: log of the factor by which rows are changed more than columns.
        crop: share of the picture's sides: a part of it, anywhere in it, whose sides are that much
            shorter at most, is made as large as the whole; Szegedy et al. 2015.
        shift: share of the picture's side.
        elastic: share of the side, the standard deviation of how far the 5 x 5 points of a grid
            are moved, and what is between them smoothly; Simard et al. 2003.
        flip: every second picture is mirrored, left to right.
        brightness: share of the full range that is added.
        contrast: log of the factor, about the picture's mean.
        saturation: log of the factor, about each pixel's grey.
        levels: share of the pictures of which black and white become two other levels, at random,
            a fifth of the range apart at least: inverted, of low contrast, on a grey ground.
        erase: share of the side of a square that is made grey, at a random position; DeVries and
            Taylor 2017, "Cutout".
        mixup: two pictures are laid over each other, and so are their labels: parameter of the beta
            distribution of the first one's share; Zhang et al. 2018.
        cutmix: a box of another picture is put in, and the labels are mixed by the areas: parameter
            likewise; Yun et al. 2019. With both every second picture is mixed so.
        fill: what is seen beyond the border: "black", or the picture itself by "reflect".
    """

    rotation: Amount = 0.0
    shear: Annotated[float, Meta(ge=0, lt=90)] = 0.0
    zoom: Amount = 0.0
    stretch: Amount = 0.0
    crop: Share = 0.0
    shift: Share = 0.0
    elastic: Share = 0.0
    flip: bool = False
    brightness: Share = 0.0
    contrast: Amount = 0.0
    saturation: Amount = 0.0
    levels: Annotated[float, Meta(ge=0, le=1)] = 0.0
    erase: Share = 0.0
    mixup: Amount = 0.0
    cutmix: Amount = 0.0
    fill: Literal["black", "reflect"] = "black"
