"""The comparison of two runs: what was declared differently, how every rate changed, which verdicts and images changed.

sides.py      a run and its store: verdict.json, and the judgments and images behind it
facts.py      the differences of the two runs' declared facts
cells.py      every cell of both: its changes, its new images, and whether it got worse
document.py   the content of compare.json, with its schema
text.py, markdown.py, page.py     the same for a terminal, a pull request and a browser
"""
