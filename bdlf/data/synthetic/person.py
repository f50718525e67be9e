"""Draws the walking person of each synthetic image, for many images at once.

The body consists of a few points in three dimensions (across, up, towards the camera). They are turned by the view and
projected, and each part of the body becomes a shape on the `Canvas`. Both modalities show the same shapes. They differ
only in the colour of each part: red, green and blue in visible images, one emissivity in infrared images.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from bdlf.data.synthetic.canvas import Canvas, Colour, Column
from bdlf.data.synthetic.factors import SHARED_CLASSES

INFRARED_PATTERN = 1.0
"""How strongly infrared images show the pattern of the cloth, 0 to 1. Smaller values make the dataset harder."""
TALLEST = 0.88
"""Height of the tallest person at scale 1, in frame heights."""


class Person:
    """The measures of the bodies in frame heights, one row for each image. `paint` paints all parts on `canvas`.

    `factors` holds one column of numbers for each factor. `infrared` says which modality is drawn.
    """

    def __init__(self, canvas: Canvas, factors: dict[str, Column], infrared: bool) -> None:
        self.canvas, self.f, self.infrared = canvas, factors, infrared
        view = np.deg2rad(factors["view"])
        self.cos, self.sin = np.cos(view), np.sin(view)
        self.facing = np.clip(0.5 + 2 * self.cos, 0, 1)  # 1 if seen from the front, 0 if seen from behind
        self.near = np.where(self.sin > 0, np.float32(-1), np.float32(1))  # the side of the arm and leg in front

        f = factors
        self.tall = tall = TALLEST * f["stature"] * f["scale"]
        self.ground = 0.955 + f["shift_y"]
        self.centre = f["shift_x"]
        self.hip_y = self.ground - f["leg_ratio"] * tall
        self.head = 0.062 * f["head_size"] * tall
        self.head_y = self.ground - tall + self.head
        self.shoulder_y = self.head_y + self.head + 0.022 * tall
        self.shoulder = self.turned(f["shoulder_width"] * tall, 0.62)
        self.waist = self.turned(f["waist_width"] * tall, 0.85)
        self.hip = self.turned(f["hip_width"] * tall, 0.80)
        self.stride = 0.085 * tall * f["gait_stride"] * np.sin(f["gait_phase"])
        self.limb = 0.036 * f["limb_width"] * tall

    def is_class(self, factor: str, name: str) -> Column:
        """1 in the images where `factor` has the class `name`, else 0."""
        codes = [code for code, other in enumerate(SHARED_CLASSES[factor]) if other == name]
        member: Column = np.isin(self.f[factor], codes).astype(np.float32)
        return member

    def turned(self, half: Column, depth: float) -> Column:
        """The half width that the camera sees of an elliptic section with half width `half` and half depth
        `depth` x `half`."""
        seen: Column = half * np.sqrt(self.cos**2 + (depth * self.sin) ** 2)
        return seen

    def across(self, side: Column | float, forward: Column | float) -> Column:
        """The x in the image of a point that lies `side` to the left of the person and `forward` in front of them."""
        x: Column = self.centre + side * self.cos + forward * self.sin
        return x

    def colour(self, region: str, shade: float = 1.0) -> Colour:
        """The colour of a region in this modality, multiplied by `shade`."""
        if self.infrared:
            emissivity = self.f[f"emissivity_{region}"]
            if region == "pattern":  # its factor is the difference from the cloth
                emissivity = np.clip(self.f["emissivity_upper"] + INFRARED_PATTERN * emissivity, 0.02, 0.98)
            values = emissivity.T
        else:
            values = np.stack([self.f[f"colour_{region}_{c}"][:, 0] for c in ("red", "green", "blue")])
        shaded: Colour = shade * values
        return shaded

    def paint(self) -> None:
        """Paint all parts from back to front."""
        near = self.near
        self.bag(behind=True)
        self.arm(-near, 0.80)
        self.hair(behind=True)
        self.leg(-near, 0.78)
        self.leg(near, 1.0)
        self.skirt()
        self.torso()
        self.head_and_hair()
        self.arm(near, 0.88)
        self.bag(behind=False)

    def leg(self, side: Column, shade: float) -> None:
        f, tall = self.f, self.tall
        hip_x = self.across(0.55 * side * f["hip_width"] * tall, 0.0)
        reach = self.stride * side
        knee_y, foot_y = (self.hip_y + self.ground) / 2, self.ground - 0.012 * tall
        knee_x = hip_x + (0.55 * reach + 0.012 * tall) * self.sin
        foot_x = hip_x + reach * self.sin
        # A foot that is stepping away from the camera appears a little higher in the image.
        lift = 0.18 * np.abs(reach * self.cos) * (reach * self.cos < 0)
        ys = [self.hip_y - 0.03 * tall, knee_y, foot_y - lift]
        centre = self.canvas.along(ys, [hip_x, knee_x, foot_x])
        bare = self.canvas.along(ys, [1.45 * self.limb, 1.05 * self.limb, 0.60 * self.limb])
        self.canvas.paint(self.colour("skin", shade), centre, bare, self.canvas.between(ys[0], ys[2]))
        trousers, shorts = self.is_class("legwear", "trousers"), self.is_class("legwear", "shorts")
        hem = self.hip_y + np.where(trousers > 0, 0.96, 0.75 * f["leg_cover"]) * (foot_y - lift - self.hip_y)
        cloth = self.canvas.along(ys, [1.60 * self.limb, 1.25 * self.limb, 0.95 * self.limb])
        cover = self.canvas.between(ys[0], hem) * (trousers + shorts)
        self.canvas.paint(self.colour("lower", shade), centre, cloth, cover)
        stripe = cover * self.is_class("leg_stripe", "stripe")
        self.canvas.paint(self.colour("pattern", shade), centre, 0.35 * cloth, stripe)
        toe_x = foot_x + 0.022 * tall * self.sin
        size = self.limb * (0.95 + 0.55 * np.abs(self.sin))
        self.canvas.ellipse(self.colour("shoes", shade), toe_x, ys[2], size, 0.022 * tall)

    def skirt(self) -> None:
        hem = self.hip_y + 0.80 * self.f["leg_cover"] * (self.ground - self.hip_y)
        top = self.hip_y - 0.06 * self.tall
        half = self.canvas.along([top, self.hip_y, hem], [self.waist, self.hip, 1.5 * self.hip])
        cover = self.canvas.between(top, hem) * self.is_class("legwear", "skirt")
        self.canvas.paint(self.colour("lower"), self.centre, half, cover)

    def torso(self) -> None:
        f, tall, canvas = self.f, self.tall, self.canvas
        neck = self.canvas.between(self.head_y, self.shoulder_y + 0.02 * tall)
        canvas.paint(self.colour("skin", 0.9), self.centre, 0.5 * self.head, neck)
        top, hem = self.shoulder_y - 0.012 * tall, self.hip_y + f["coat_length"] * tall
        waist_y = self.shoulder_y + 0.55 * (self.hip_y - self.shoulder_y)
        slope_y, arm_y = top + 0.014 * tall, top + 0.050 * tall
        ys = [top, slope_y, arm_y, waist_y, self.hip_y, np.maximum(hem, self.hip_y + 1e-3)]
        flared = self.hip * np.where(f["coat_length"] > 0.05, f["coat_flare"], 1)
        halves = [0.40 * self.shoulder, 0.80 * self.shoulder, self.shoulder, self.waist, self.hip, flared]
        half = canvas.along(ys, halves)
        cover = canvas.between(top, hem)
        canvas.paint(self.colour("upper"), self.centre, half, cover)
        texture = self.pattern(top, self.hip_y) * f["pattern_contrast"][:, :, None]
        canvas.paint(self.colour("pattern"), self.centre, 0.97 * half, cover, texture)
        scarf = canvas.between(top - 0.015 * tall, top + 0.035 * tall) * self.is_class("scarf", "scarf")
        canvas.paint(self.colour("hat"), self.centre, 0.62 * self.shoulder, scarf)

    def pattern(self, top: Column, bottom: Column) -> Float32[ndarray, "n h w"]:
        """How much each pixel shows the second colour of the cloth, 0 to 1.

        All patterns are sums and products of two soft square waves, one along the rows and one along the columns.
        """
        turns = 2 * np.pi * self.f["pattern_frequency"]
        phase = 2 * np.pi * self.f["pattern_phase"]
        down = (self.canvas.y - top) / (bottom - top)
        aside = (self.canvas.x - self.centre) / (1.2 * self.shoulder)
        rows = np.clip(0.5 + 1.5 * np.sin(turns * down + phase), 0, 1)[:, :, None]
        columns = np.clip(0.5 + 1.5 * np.cos(turns * aside), 0, 1)[:, None, :]
        middle = 0.25 + 0.4 * self.f["pattern_phase"]
        band = self.canvas.between(top + middle * (bottom - top), top + (middle + 0.28) * (bottom - top))[:, :, None]

        def weight(name: str) -> Float32[ndarray, "n 1 1"]:
            return self.is_class("pattern", name)[:, :, None]

        by_row = weight("horizontal") * rows + weight("band") * band + weight("checks") * rows
        by_column = (weight("vertical") + weight("checks")) * columns
        both = (weight("dots") - 2 * weight("checks")) * (rows * columns)
        shown: Float32[ndarray, "n h w"] = by_row + by_column + both
        return shown

    def hair(self, behind: bool) -> None:
        """Paints long hair: behind the neck of people who face the camera, over the back of all others."""
        shown = self.facing if behind else 1 - self.facing
        long = self.is_class("hair_style", "long")
        x = self.across(0.0, -0.35 * self.head)
        cover = self.canvas.between(self.head_y, self.head_y + 2.6 * self.head) * long * shown
        self.canvas.paint(self.colour("hair"), x, 1.02 * self.head, cover)

    def head_and_hair(self) -> None:
        canvas, head, x = self.canvas, self.head, self.across(0.0, 0.1 * self.head)
        canvas.ellipse(self.colour("skin"), x, self.head_y, 0.84 * head, head)
        hairy = 1 - self.is_class("hair_style", "bald")
        wide, bun = self.is_class("hair_style", "wide"), self.is_class("hair_style", "bun")
        back_x = self.across(0.0, -0.16 * head)
        lowest = self.head_y + head * (0.75 - 1.05 * self.facing)
        size = head * (0.92 + 0.38 * wide)
        cover = canvas.between(0.0, lowest + 0.55 * wide * head) * hairy
        canvas.ellipse(self.colour("hair"), back_x, self.head_y - 0.05 * head, size, head * (1.04 + 0.18 * wide), cover)
        # Paint the face again, in front of the sides of wide hair.
        canvas.ellipse(self.colour("skin"), x, self.head_y + 0.28 * head, 0.6 * head, 0.68 * head, self.facing * wide)
        bun_y = self.head_y - 1.15 * head
        canvas.ellipse(self.colour("hair"), self.across(0.0, -0.4 * head), bun_y, 0.48 * head, 0.45 * head, bun)
        self.hair(behind=False)
        capped, warm = self.is_class("hat", "cap"), self.is_class("hat", "beanie")
        worn = canvas.between(0.0, self.head_y - head * (0.25 + 0.10 * capped)) * (capped + warm)
        canvas.ellipse(self.colour("hat"), x, self.head_y - 0.12 * head, head, head * (1.05 + 0.3 * warm), worn)
        brim_x, brim_y = self.across(0.0, 0.75 * head), self.head_y - 0.38 * head
        canvas.ellipse(self.colour("hat", 0.8), brim_x, brim_y, 0.75 * head, 0.16 * head, capped * (self.cos > -0.3))

    def arm(self, side: Column, shade: float) -> None:
        f, tall, canvas = self.f, self.tall, self.canvas
        length = 0.40 * f["arm_length"] * tall
        shoulder_x = self.across(side * 0.95 * f["shoulder_width"] * tall, 0.0)
        swing = -1.1 * self.stride * side
        elbow_x = shoulder_x + 0.35 * swing * self.sin + 0.018 * side * tall * self.cos
        hand_x = shoulder_x + swing * self.sin + 0.024 * side * tall * self.cos
        top = self.shoulder_y + 0.015 * tall
        ys = [top, top + 0.5 * length, top + length - 0.3 * np.abs(swing * self.sin)]
        centre = canvas.along(ys, [shoulder_x, elbow_x, hand_x])
        half = canvas.along(ys, [0.95 * self.limb, 0.80 * self.limb, 0.65 * self.limb])
        canvas.paint(self.colour("skin", shade), centre, half, canvas.between(*ys[::2]))
        cuff = ys[0] + 0.92 * f["sleeve_length"] * (ys[2] - ys[0])
        canvas.paint(self.colour("upper", shade), centre, 1.22 * half, canvas.between(ys[0] - 0.01 * tall, cuff))

    def bag(self, behind: bool) -> None:
        """Paints the bags that are behind the body, or with `behind=False` those in front of it."""
        f, tall = self.f, self.tall
        back, trolley = self.is_class("bag", "backpack"), self.is_class("bag", "trolley")
        satchel, hand = self.is_class("bag", "satchel"), self.is_class("bag", "handbag")
        side = 2 * f["bag_side"] - 1
        aside = side * (
            satchel * (f["hip_width"] + 0.035)
            + hand * (f["shoulder_width"] + 0.035)
            + trolley * (f["shoulder_width"] + 0.02)
        )
        forward = -0.105 * back - 0.10 * trolley
        towards = forward * self.cos - aside * self.sin
        shown = (towards < 0 if behind else towards >= 0) * (back + satchel + hand + trolley)
        x = self.across(aside * tall, forward * tall)
        y = (
            back * (self.shoulder_y + 0.15 * tall)
            + satchel * (self.hip_y + 0.01 * tall)
            + hand * (self.hip_y + 0.10 * tall)
            + trolley * (self.ground - 0.12 * tall)
        )
        across = back * 0.105 + satchel * 0.055 + hand * 0.040 + trolley * 0.085
        along = back * 0.060 + satchel * 0.075 + hand * 0.080 + trolley * 0.050
        half = f["bag_size"] * tall * np.sqrt((across * self.cos) ** 2 + (along * self.sin) ** 2)
        tall_half = f["bag_size"] * tall * (back * 0.130 + satchel * 0.060 + hand * 0.060 + trolley * 0.105)
        self.straps(x, y, satchel, trolley, behind)
        cover = self.canvas.between(y - tall_half, y + tall_half) * shown
        self.canvas.paint(self.colour("bag"), x, half, cover)
        self.canvas.paint(self.colour("bag", 0.7), x, 0.8 * half, self.canvas.between(y - 0.1 * tall_half, y) * shown)

    def straps(self, x: Column, y: Column, satchel: Column, trolley: Column, behind: bool) -> None:
        """Paints the strap of a satchel over the chest, and the handle of a trolley up to the hand."""
        tall, side = self.tall, 2 * self.f["bag_side"] - 1
        start = self.across(-0.7 * side * self.f["shoulder_width"] * tall, 0.0)
        line = self.canvas.along([self.shoulder_y, y], [start, x])
        cover = self.canvas.between(self.shoulder_y - 0.01 * tall, y) * satchel * (not behind)
        self.canvas.paint(self.colour("bag"), line, 0.014 * tall, cover)
        handle = self.canvas.between(self.hip_y + 0.06 * tall, y) * trolley * behind
        self.canvas.paint(self.colour("bag"), x, 0.010 * tall, handle)


class Silhouette(Person):
    """The same bodies as silhouettes, on a canvas of one plane: every part has the value 1, and no bag is painted."""

    def colour(self, region: str, shade: float = 1.0) -> Colour:
        return np.ones((1, len(self.tall)), np.float32)

    def bag(self, behind: bool) -> None:
        pass
