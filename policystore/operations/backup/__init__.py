"""One file with every row of a store, that either database can write and either can take in again.

A backup is a ZIP archive: for each table `tables/NAME.jsonl` with one row a line, as an array in the order of the
table's columns, and last `manifest.json`, which says how many rows and which digest each table has. Restoring makes the
tables as they were when the backup was made, puts the rows in, compares every one, and only then migrates onwards.
"""
