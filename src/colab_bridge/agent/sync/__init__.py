"""What both ends of the file sync share: trees, names, ignore rules and how trees travel.

Standard library only, Python 3.10 and later, siblings imported relatively: the folder is shipped to the runtime as it
is, so both sides decide with the same code. No disk, no clock, no network in here.
"""
