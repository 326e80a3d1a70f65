"""The line after a run."""

from __future__ import annotations

from colab_bridge.sync.report import Deferred, SyncReport, run_line


def test_results_are_named_before_what_went_up_and_nothing_twice() -> None:
    reports = [
        SyncReport(up=("a.csv", "b.csv"), down=("z.png",)),
        SyncReport(up=("b.csv",), down=("z.png", "models/m.pkl")),
    ]
    assert run_line(reports) == "2 up, 2 down: models/m.pkl, z.png, a.csv, …"
    assert run_line(reports, {"z.png", "a.csv"}) == "1 up, 1 down: models/m.pkl, b.csv"
    assert run_line([SyncReport()]) == run_line([]) == ""


def test_what_still_comes_in_the_background_is_not_said_to_be_down() -> None:
    beginning, last = SyncReport(down=("model.bin", "x")), SyncReport(deferred=(Deferred(path="model.bin", size=9),))
    assert run_line([beginning, last]) == "1 down: x"
    assert run_line([beginning, last, SyncReport()]) == "2 down: model.bin, x"
