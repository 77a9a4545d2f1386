"""On how many threads a work goes on."""

from __future__ import annotations

from headfirst.features import kept_threads, torch_threads


def test_work_goes_on_on_as_many_threads_as_it_began_with(tmp_path):
    with torch_threads(3):
        assert kept_threads(tmp_path) == 3
    with torch_threads(2):
        assert kept_threads(tmp_path) == 3


def test_a_record_that_a_kill_left_empty_is_written_again(tmp_path):
    (tmp_path / "threads").write_text("")
    with torch_threads(2):
        assert kept_threads(tmp_path) == 2
    assert (tmp_path / "threads").read_text() == "2"
