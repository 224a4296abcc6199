"""Reports of verdicts (terminal table, verdict.json, Allure …): one module each, all from the same record of a cell.

A record is the cell's object in verdict.json (`verdict_json.CellResult`): plain JSON types, made once in the process
that decided the cell, sent to the pytest controller, and read by every report.
"""
