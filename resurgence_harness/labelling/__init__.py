"""Pictures that a person labels on a local page: `resurgence label`.

picture_set    the pictures, and what they were drawn for, which the page does not show
label_file     the answers of one labeller: appended at once, each with the digest of all before it
session        which picture comes next, answers and undo, the agreement of two labellers
page           the server on this machine's own address, and page.html
"""

from __future__ import annotations

from resurgence_harness.labelling.label_file import CANNOT_TELL, NONE, LabelFile, labellers
from resurgence_harness.labelling.picture_set import Picture, PictureSet
from resurgence_harness.labelling.session import Session

__all__ = ["CANNOT_TELL", "NONE", "LabelFile", "Picture", "PictureSet", "Session", "labellers"]
