"""The factors of the synthetic dataset: the numbers from which each image is drawn.

Every image is a deterministic function of the numbers in its row of the listing, so a finding about a trained network
can be traced to its cause. There are four kinds of factors (`FACTOR_KINDS`):

- shared: a property of the identity that both modalities show (silhouette, hair, bag, cut and pattern of the clothes);
- visible: a property of the identity that only visible images show (colours);
- infrared: a property of the identity that only infrared images show (emissivities);
- nuisance: a property of the image or its camera, which says nothing about the identity.

Only the constants below determine how hard the dataset is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bdlf.datasets import DATASETS
from bdlf.system.errors import InputError

# --- Difficulty. Larger is harder, except IDENTITY_SPREAD, where larger is easier. ---
IDENTITY_SPREAD = 1.0
"""How far the continuous shared factors spread around the middle of SHARED_RANGES; 1 fills these ranges."""
VIEW_JITTER = 5.0
"""Standard deviation of the view of a person around the view of the camera, in degrees."""
CAMERA_VIEW = 12.0
"""The view of a camera is at most this many degrees away from the front of the people."""
BACK_RATE = 0.03
"""Share of images that show the person from behind."""
PLACEMENT_JITTER = 0.3
"""Factor of the random shift and scale of the person in the frame, as from an imperfect detector."""
LIGHT_JITTER = 0.4
"""Factor of the variation of brightness, light direction and tint among images and cameras."""
NOISE_LEVEL = 0.025
"""Mean standard deviation of the pixel noise, where pixels range from 0 to 1."""
PRIVATE_SPREAD = 0.25
"""How far the emissivities of a region spread among people; 1 fills the ranges of _EMISSIVITY. A network learns what
only one modality shows more easily than what both show, but it cannot use it across modalities."""
PALETTES = 2
"""How many colour palettes the clothes come from, at most 5. Only visible images show colours, so the same applies."""
OCCLUSION_RATE = 0.08
"""Share of images with a pole or a box in front of the person."""
BACKGROUND_CONTRAST = 0.25
"""Contrast of the wall and floor behind the person, for the camera where it is strongest."""

IDENTITY_LIMIT = 4999
"""The most identities of a split. Pids have at most four digits, and those of 'test' start at 5001."""

SHARED_RANGES: dict[str, tuple[float, float]] = {
    "stature": (0.78, 1.0),  # height of the person / height of the tallest
    "shoulder_width": (0.095, 0.150),  # this and the next two: half width / height of the person
    "waist_width": (0.075, 0.135),
    "hip_width": (0.080, 0.135),
    "leg_ratio": (0.42, 0.55),  # length of the legs / height of the person
    "head_size": (0.85, 1.25),
    "limb_width": (0.75, 1.35),
    "arm_length": (0.85, 1.15),
    "coat_length": (-0.04, 0.27),  # distance of the hem below the hip / height of the person
    "coat_flare": (0.90, 1.45),
    "sleeve_length": (0.25, 1.0),  # share of the arm
    "leg_cover": (0.35, 1.0),  # share of the leg that shorts and skirts cover
    "bag_size": (0.75, 1.35),
    "pattern_frequency": (1.6, 3.6),  # cycles over the torso
    "pattern_phase": (0.0, 1.0),
    "pattern_contrast": (0.55, 1.0),
}
SHARED_CLASSES: dict[str, tuple[str, ...]] = {
    "hair_style": ("bald", "short", "long", "bun", "wide"),
    "hat": ("none", "none", "cap", "beanie"),
    "scarf": ("none", "none", "scarf"),
    "legwear": ("trousers", "shorts", "skirt"),
    "leg_stripe": ("none", "none", "stripe"),
    "bag": ("none", "backpack", "satchel", "handbag", "trolley"),
    "bag_side": ("right", "left"),
    "pattern": ("plain", "horizontal", "vertical", "checks", "dots", "band"),
}
"""The classes of each factor. The number of a class is its first position here; a class that is listed twice is drawn
twice as often."""

REGIONS = ("skin", "hair", "upper", "pattern", "lower", "shoes", "bag", "hat")
_EMISSIVITY = {  # from 0 to 1: skin is warm, carried things are cold
    "skin": (0.80, 0.98),
    "hair": (0.35, 0.60),
    "upper": (0.35, 0.75),
    "pattern": (0.20, 0.32),  # added to the value of "upper": the pattern is the lighter of the cloth's two tones
    "lower": (0.15, 0.25),  # added to or subtracted from the value of "upper", so that infrared shows the hem too
    "shoes": (0.20, 0.50),
    "bag": (0.08, 0.40),
    "hat": (0.20, 0.60),
}
_CHANNELS = ("red", "green", "blue")
# There are few palettes, so that many identities wear the same colours.
_PALETTES = np.array(
    [
        [[0.12, 0.12, 0.14], [0.25, 0.26, 0.30], [0.50, 0.50, 0.52], [0.75, 0.75, 0.74]],  # greys
        [[0.14, 0.18, 0.36], [0.25, 0.38, 0.60], [0.55, 0.66, 0.80], [0.82, 0.82, 0.80]],  # denim
        [[0.33, 0.22, 0.14], [0.52, 0.40, 0.26], [0.70, 0.62, 0.45], [0.30, 0.34, 0.20]],  # earth
        [[0.68, 0.14, 0.16], [0.16, 0.17, 0.22], [0.85, 0.80, 0.74], [0.78, 0.52, 0.18]],  # warm
        [[0.12, 0.42, 0.32], [0.20, 0.22, 0.28], [0.60, 0.76, 0.62], [0.80, 0.80, 0.78]],  # greens
    ]
)
_SKIN = np.array([[0.90, 0.74, 0.64], [0.80, 0.60, 0.48], [0.62, 0.44, 0.33], [0.42, 0.29, 0.22]])
_HAIR = np.array([[0.10, 0.08, 0.08], [0.24, 0.15, 0.10], [0.45, 0.32, 0.18], [0.58, 0.56, 0.54]])

_VISIBLE = [f"colour_{region}_{channel}" for region in REGIONS for channel in _CHANNELS]
_INFRARED = [f"emissivity_{region}" for region in REGIONS]
_NUISANCE = [
    *("view", "gait_phase", "gait_stride"),  # degrees, radians, a factor
    *("shift_x", "shift_y", "scale"),  # frame heights, frame heights, a factor
    *("light", "light_gradient", "tint_red", "tint_green", "tint_blue"),  # factors; neutral: gradient 0, the others 1
    *("background_red", "background_green", "background_blue", "background_horizon", "background_frequency"),
    *("background_contrast", "background_offset", "noise", "noise_seed"),
    *("occluder", "occluder_x", "occluder_size", "occluder_shade"),  # 0 none, 1 pole, 2 box from below
]
FACTOR_KINDS: dict[str, str] = {
    **dict.fromkeys([*SHARED_RANGES, *SHARED_CLASSES], "shared"),
    **dict.fromkeys(_VISIBLE, "visible"),
    **dict.fromkeys(_INFRARED, "infrared"),
    **dict.fromkeys(_NUISANCE, "nuisance"),
}
"""The kind of each factor, which is a column of the listing: 'shared', 'visible', 'infrared' or 'nuisance'."""

POOLS = ("train", "test", *(name for name, dataset in DATASETS.items() if dataset.layout is not None))
"""Disjoint sets of identities: the two splits of the synthetic listing, and one set for each layout on disk."""

Seed = tuple[int, ...]
_IDENTITY, _IMAGE, _CAMERA = range(3)  # the first number of a seed says what its random numbers are for


def _identity_factors(seed: int, pool: int, identity: int) -> NDArray[np.float64]:
    """Shared, visible and infrared factors of one identity, in the order of `FACTOR_KINDS`."""
    random = np.random.default_rng((_IDENTITY, seed, pool, identity))
    low, high = np.array(list(SHARED_RANGES.values())).T
    middle, half = (low + high) / 2, (high - low) / 2
    continuous = middle + half * IDENTITY_SPREAD * random.uniform(-1, 1, len(middle))
    classes = [names.index(names[random.integers(len(names))]) for names in SHARED_CLASSES.values()]

    palette = _PALETTES[random.integers(PALETTES)]
    colours = palette[random.integers(len(palette), size=len(REGIONS))]
    colours[REGIONS.index("skin")] = _SKIN[random.integers(len(_SKIN))]
    colours[REGIONS.index("hair")] = _HAIR[random.integers(len(_HAIR))]
    # Cloth and pattern get two different colours. The lighter one is the pattern, as in infrared.
    cloth, mark = sorted(random.permutation(len(palette))[:2], key=lambda k: palette[k].sum())
    colours[REGIONS.index("upper")], colours[REGIONS.index("pattern")] = palette[cloth], palette[mark]
    # Trousers and bag get other colours than the cloth, so that the hem and the bag are visible.
    for region in ("lower", "bag"):
        colours[REGIONS.index(region)] = palette[(cloth + random.integers(1, len(palette))) % len(palette)]
    colours = np.clip(colours + random.normal(0, 0.03, colours.shape), 0.02, 0.98)

    cold, hot = np.array([_EMISSIVITY[region] for region in REGIONS]).T
    emissivity = (cold + hot) / 2 + (hot - cold) / 2 * PRIVATE_SPREAD * random.uniform(-1, 1, len(REGIONS))
    upper, lower = REGIONS.index("upper"), REGIONS.index("lower")
    emissivity[lower] = emissivity[upper] + random.choice([-1, 1]) * emissivity[lower]
    return np.concatenate([continuous, classes, colours.ravel(), emissivity])


def _image_factors(seed: int, infrared: bool, camera: int, image: Seed) -> NDArray[np.float64]:
    """The nuisances of one image: the constants of its camera plus what varies from image to image."""
    lens = np.random.default_rng((_CAMERA, seed, camera))
    random = np.random.default_rng((_IMAGE, seed, int(infrared), camera, *image))
    view = lens.uniform(-CAMERA_VIEW, CAMERA_VIEW) + random.normal(0, VIEW_JITTER)
    view += 180.0 * (random.random() < BACK_RATE)
    gait = [random.uniform(0, 2 * np.pi), random.uniform(0.4, 1.0)]
    placement = PLACEMENT_JITTER * random.normal(0, (0.016, 0.010, 0.025))
    light = np.exp(LIGHT_JITTER * (lens.normal(0, 0.10) + random.normal(0, 0.10)))
    gradient = LIGHT_JITTER * (lens.normal(0, 0.15) + random.normal(0, 0.10))
    tint = np.exp(LIGHT_JITTER * (lens.normal(0, 0.10, 3) + random.normal(0, 0.03, 3)))
    ground = lens.uniform(0.08, 0.25) if infrared else lens.uniform(0.35, 0.70)
    background = np.clip(ground + lens.normal(0, 0.05, 3) + random.normal(0, 0.04), 0.02, 0.98)
    scene = [
        lens.uniform(0.45, 0.80) + random.normal(0, 0.02),
        lens.uniform(1.0, 4.0),
        lens.uniform(0.3, 1.0) * BACKGROUND_CONTRAST,
        random.uniform(0, 1),
    ]
    noise = [NOISE_LEVEL * random.uniform(0.5, 1.5), float(random.integers(2**31))]
    occluder = float(random.random() < OCCLUSION_RATE) * float(random.integers(1, 3))
    occlusion = [occluder, random.uniform(-0.16, 0.16), random.uniform(0.5, 1.0), random.uniform(0.1, 0.6)]
    return np.concatenate(
        [
            [view % 360.0],
            gait,
            (*placement[:2], 1 + placement[2]),
            [light, gradient],
            tint,
            background,
            scene,
            noise,
            occlusion,
        ]
    )


def factor_columns(
    *, seed: int, pool: str, identity: NDArray, modality: NDArray, camid: NDArray, image: NDArray
) -> pd.DataFrame:
    """The factor columns of `len(identity)` images, in the order of `FACTOR_KINDS`.

    - `pool`: the set of identities, one of `POOLS`.
    - `identity`: from 0 in its pool.
    - `modality`: 'vis' or 'ir'.
    - `image`: a number from 0 that differs among the images of one identity, modality and camera.

    Row i depends only on `seed`, `pool` and the i-th entries of `identity`, `modality`, `camid` and `image`.
    """
    supply = POOLS.index(pool)
    people = {who: _identity_factors(seed, supply, who) for who in dict.fromkeys(int(i) for i in identity)}
    rows = [
        np.concatenate(
            [people[int(who)], _image_factors(seed, kind == "ir", int(camera), (supply, int(who), int(number)))]
        )
        for who, kind, camera, number in zip(identity, modality, camid, image, strict=True)
    ]
    columns: pd.DataFrame = pd.DataFrame(np.array(rows).reshape(-1, len(FACTOR_KINDS)), columns=list(FACTOR_KINDS))
    return columns


def synthetic_listing(
    *,
    seed: int = 0,
    train_identities: int = 96,
    test_identities: int = 64,
    images_per_identity: int = 8,
    visible_cameras: Sequence[int] = (1, 2),
    infrared_cameras: Sequence[int] = (3, 4),
) -> pd.DataFrame:
    """The synthetic set as a listing (`path`, `pid`, `camid`, `modality`, `split`) with one column for each factor.

    The images are not files: `bdlf.data.synthetic.drawing.render` draws them. Each identity has `images_per_identity`
    images in each modality, which that modality's cameras take in turn. Pids of 'train' start at 1, those of 'test' at
    5001. A larger set contains every smaller one of the same seed and cameras. Raises `InputError` for a size, a seed
    or cameras that are impossible.
    """
    sizes = {"train_identities": train_identities, "test_identities": test_identities}
    for name, size in sizes.items():
        if not 0 <= size <= IDENTITY_LIMIT:
            raise InputError(f"{name}={size}: give a number from 0 to {IDENTITY_LIMIT}")
    if not 1 <= images_per_identity <= 999:
        raise InputError(f"images_per_identity={images_per_identity}: give a number from 1 to 999")
    if seed < 0:
        raise InputError(f"dataset seed {seed}: give a number from 0")
    cameras = {"vis": list(visible_cameras), "ir": list(infrared_cameras)}
    every = cameras["vis"] + cameras["ir"]
    if not cameras["vis"] or not cameras["ir"] or len(set(every)) < len(every) or min(every) < 1:
        raise InputError(f"cameras {cameras}: give at least one a modality, each with its own number from 1")

    parts = []
    for split, size in (("train", train_identities), ("test", test_identities)):
        identity = np.repeat(np.arange(size), 2 * images_per_identity)
        modality = np.tile(np.repeat(["vis", "ir"], images_per_identity), size)
        image = np.tile(np.arange(images_per_identity), 2 * size)
        dealt = {kind: np.resize(own, images_per_identity) for kind, own in cameras.items()}
        camid = np.tile(np.concatenate([dealt["vis"], dealt["ir"]]), size)
        pid = identity + (1 if split == "train" else IDENTITY_LIMIT + 2)
        part = pd.DataFrame(
            {
                "path": [
                    f"{split}/{who:04d}/{kind}_c{camera}_{number:03d}.png"
                    for who, kind, camera, number in zip(pid, modality, camid, image, strict=True)
                ],
                "pid": pid.astype(np.int64),
                "camid": camid.astype(np.int64),
                "modality": modality,
                "split": split,
            }
        )
        factors = factor_columns(seed=seed, pool=split, identity=identity, modality=modality, camid=camid, image=image)
        parts.append(pd.concat([part, factors], axis=1))
    listing: pd.DataFrame = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    return listing
