"""A verdict told in a terminal table, in verdict.json, in Allure: one file each, all from the same record of a cell.

A record is the cell's object in verdict.json (`verdict_json.CellResult`): plain JSON types, made once where the cell
was decided, sent to the pytest controller, and read by every report.
"""
