"""The disk under the file sync: roots, scanning, watching, placing. Standard library only, blocking functions.

Everything is reached from the descriptor of the root, name by name, and no link is followed.
"""
