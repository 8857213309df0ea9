"""The table of faults: what can go wrong with a numerical library, one test a row, by its number.

Rows are numbered through all files; a row that has several sides has several tests.
"""
