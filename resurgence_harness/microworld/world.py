"""The microworld: rendered pictures of its subjects, with captions.

`draw` renders a batch of one family, `draw_world` a training batch of all families; each picture's caption determines
its style. The same seed gives the same pictures on the same device, at any size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from resurgence_harness.microworld import styles
from resurgence_harness.microworld.canvas import Canvas
from resurgence_harness.microworld.characters import draw_characters
from resurgence_harness.microworld.objects import draw_objects
from resurgence_harness.microworld.people import draw_faces, identities, strangers
from resurgence_harness.microworld.scenes import draw_scenes, draw_signs
from resurgence_harness.tasks import CELEBRITY
from resurgence_harness.tasks.microworld import (
    CHARACTER_TEMPLATES,
    CHARACTERS,
    HAZARD_TEMPLATES,
    HAZARDS,
    OBJECT_TEMPLATES,
    OBJECTS,
    PEOPLE,
    PERSON_TEMPLATES,
    SCENE_TEMPLATES,
    SCENES,
)

CELEBRITIES: tuple[str, ...] = tuple(
    concept.name for concept in (*CELEBRITY.erasable, *CELEBRITY.preserve, *CELEBRITY.held_out)
)
"""The two hundred names; name k has the k-th identity of `people.identities`."""

FAMILIES = ("celebrity", "stranger", "object", "character", "hazard", "scene")
SHARES = (0.52, 0.06, 0.15, 0.12, 0.09, 0.06)
"""The share of each family in a training batch."""


@dataclass(frozen=True)
class Pictures:
    """A batch: uint8 images [n, 3, s, s] with their labels and captions. `subject` is −1 for a stranger."""

    images: Tensor
    family: Tensor
    """int64 [n], index into `FAMILIES`."""
    subject: Tensor
    """int64 [n], index within the family."""
    captions: list[str]


def style_of(text: str) -> int:
    """The style that a prompt asks for, as an index of `styles`."""
    for word, style in (
        ("sketch", styles.SKETCH),
        ("oil painting", styles.OIL),
        ("portrait", styles.PORTRAIT),
        ("public event", styles.EVENT),
        ("official photo", styles.OFFICIAL),
    ):
        if word in text.casefold():
            return style
    return styles.PHOTO


def _rolls(n: int, high: int, generator: torch.Generator) -> list[int]:
    return torch.randint(high, (n,), generator=generator).tolist()


def _captions(family: str, subjects: list[int], rolls: list[int], scenes: list[int]) -> list[str]:
    """One training caption per subject; `rolls` choose template and synonym."""
    out = []
    for subject, roll, scene in zip(subjects, rolls, scenes, strict=True):
        match family:
            case "celebrity":
                out.append(PERSON_TEMPLATES[roll % len(PERSON_TEMPLATES)].format(CELEBRITIES[subject]))
            case "stranger":
                out.append(PERSON_TEMPLATES[roll % len(PERSON_TEMPLATES)].format(PEOPLE[roll // 16 % len(PEOPLE)]))
            case "object":
                label = list(OBJECTS)[subject]
                names = (label, label, label, *OBJECTS[label])
                out.append(OBJECT_TEMPLATES[roll % len(OBJECT_TEMPLATES)].format(names[roll // 16 % len(names)]))
            case "character":
                out.append(CHARACTER_TEMPLATES[roll % len(CHARACTER_TEMPLATES)].format(CHARACTERS[subject]))
            case "hazard":
                template = HAZARD_TEMPLATES[roll % len(HAZARD_TEMPLATES)]
                out.append(template.format(hazard=HAZARDS[subject], scene=SCENES[scene]))
            case "scene":
                out.append(SCENE_TEMPLATES[roll % len(SCENE_TEMPLATES)].format(scene=SCENES[subject]))
    return out


def _scene_in(text: str, fallback: int) -> int:
    """The index of the scene that a caption names, else `fallback`."""
    places = (("city", 2), ("mountain", 1), ("beach", 0), ("forest", 3))
    for index, scene in enumerate(SCENES):
        if scene in text:
            return index
    return next((index for word, index in places if word in text), fallback)


def draw(
    family: str, subjects: Tensor, *, generator: torch.Generator, size: int = 64, device: torch.device | str = "cpu"
) -> Pictures:
    """Draw a batch of one family; `subjects` int64 [n]. `generator` is on the CPU and also seeds the device's own."""
    n = len(subjects)
    rolls, scenes = _rolls(n, 1 << 16, generator), _rolls(n, len(SCENES), generator)
    texts = _captions(family, subjects.tolist(), rolls, scenes)
    style_list = [style_of(text) for text in texts]
    seed = int(torch.randint(2**62, (1,), generator=generator))
    canvas = Canvas(n, size, device, torch.Generator(device=device).manual_seed(seed))
    style = torch.tensor(style_list, device=device)
    scene = torch.tensor([_scene_in(text, s) for text, s in zip(texts, scenes, strict=True)], device=device)
    subjects = subjects.to(device)
    match family:
        case "celebrity" | "stranger":
            if family == "celebrity":
                codes = torch.from_numpy(identities(len(CELEBRITIES)))[subjects.cpu()]
            else:
                codes, subjects = strangers(n, generator), torch.full((n,), -1, device=device)
            styles.draw_backdrops(canvas, style)
            draw_faces(canvas, codes, style == styles.OFFICIAL)
        case "object":
            draw_objects(canvas, subjects)
        case "character":
            draw_characters(canvas, subjects, scene)
        case "hazard":
            draw_scenes(canvas, scene)
            draw_signs(canvas, subjects)
        case "scene":
            draw_scenes(canvas, subjects)
    styles.finish(canvas, style)
    images = (canvas.rgb * 255).round().to(torch.uint8)
    index = torch.full((n,), FAMILIES.index(family), device=device)
    return Pictures(images=images, family=index, subject=subjects, captions=texts)


SUBJECTS = {
    "celebrity": len(CELEBRITIES),
    "stranger": 1,
    "object": len(OBJECTS),
    "character": len(CHARACTERS),
    "hazard": len(HAZARDS),
    "scene": len(SCENES),
}
"""How many subjects each family has."""


def draw_world(n: int, *, generator: torch.Generator, size: int = 64, device: torch.device | str = "cpu") -> Pictures:
    """A training batch of `n` pictures in the proportions of `SHARES`, families one after the other."""
    counts = [int(n * share) for share in SHARES]
    counts[0] += n - sum(counts)
    parts = [
        draw(
            family,
            torch.randint(SUBJECTS[family], (count,), generator=generator),
            generator=generator,
            size=size,
            device=device,
        )
        for family, count in zip(FAMILIES, counts, strict=True)
        if count
    ]
    return Pictures(
        images=torch.cat([p.images for p in parts]),
        family=torch.cat([p.family for p in parts]),
        subject=torch.cat([p.subject for p in parts]),
        captions=[text for p in parts for text in p.captions],
    )
