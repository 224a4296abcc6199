"""Fetches bases and judges' weights: the only part of the package that downloads model files, and only by its command.

resurgence fetch sd14 q16        what is known about them: `catalogue`; licences that were agreed to: `agreements`;
                                 the hub: `hub_client`; the order of things: `obtaining`; files on disk: `preparing`
"""

from __future__ import annotations

from resurgence_harness.fetching.agreements import Agreements
from resurgence_harness.fetching.catalogue import Item, Licence, items_named, names
from resurgence_harness.fetching.hub_client import Hub
from resurgence_harness.fetching.obtaining import Step, fetch, plan
from resurgence_harness.fetching.preparing import prepare

__all__ = ["Agreements", "Hub", "Item", "Licence", "Step", "fetch", "items_named", "names", "plan", "prepare"]
