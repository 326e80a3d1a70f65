"""The decisions of the file sync, made at home: reconcile, guard, stops, plan and what people are told.

Pure: equal inputs give equal results, with no disk, clock or network. The rule numbers R0-R10 and S1-S10 are those of
docs/design/sync-core.md.
"""
