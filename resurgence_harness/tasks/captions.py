"""Forty general captions, written for this project, which are used unless the user gives a file of captions.

MACE's authors preserve a model's outputs for COCO's 616,767 captions, which cannot be shipped. These name no person, no
character, nothing harmful, and none of the ten object classes, so no task erases or measures what they describe.
"""

from __future__ import annotations

CAPTIONS = (
    "A wooden table is set with plates and glasses for dinner.",
    "Two children build a sand castle near the water.",
    "A narrow street with small shops in the morning light.",
    "A woman in a blue coat waits under an umbrella.",
    "Fresh vegetables are piled up on a market stall.",
    "An old stone bridge crosses a quiet river.",
    "A man repairs a bicycle in his workshop.",
    "Snow covers the roofs of a mountain village.",
    "A bowl of soup with bread on a checkered cloth.",
    "Several people sit in a park and read newspapers.",
    "A kitchen with white cupboards and a large window.",
    "The conductor lifts his hand in front of an orchestra.",
    "A field of yellow flowers under a cloudy sky.",
    "A girl in a red sweater blows out candles on a cake.",
    "A tall office building reflects the evening sun.",
    "Three friends laugh at a table in a café.",
    "A clock hangs above the entrance of a train station.",
    "A teacher writes numbers on a green board.",
    "Boxes and books are stacked along the wall of a room.",
    "A tennis player stretches to reach the ball.",
    "A lighthouse stands on rocks above the sea.",
    "An elderly couple walks arm in arm along a path.",
    "A pizza with tomatoes and basil lies on a paper plate.",
    "Umbrellas in many colors hang over a lane.",
    "A surfer carries his board across the beach at dusk.",
    "The living room has a grey sofa and a round carpet.",
    "A baker takes loaves of bread out of the oven.",
    "Tents stand between the trees of a forest.",
    "A close view of a camera on a tripod.",
    "A crowd watches fireworks over the harbor.",
    "A laptop, a cup of coffee and a notebook on a desk.",
    "A man in a suit speaks into a microphone on a stage.",
    "Laundry dries on a line between two houses.",
    "A waterfall drops into a pool among ferns.",
    "A nurse writes something down beside a bed.",
    "A vase of tulips stands on the window sill.",
    "Skiers wait in a line at the foot of a slope.",
    "A long staircase leads up to a temple.",
    "A boy throws a ball to his sister in the garden.",
    "Street lamps light an empty square at night.",
)
