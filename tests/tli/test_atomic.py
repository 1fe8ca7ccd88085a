from __future__ import annotations

from pathlib import Path

from tli.checkpoint.atomic import clear, new_folder

DEAD = 2**22 + 1  # above the largest id that a process can have


def test_what_is_left_of_a_name_with_a_pattern_in_it_is_removed_and_no_other(tmp_path: Path) -> None:
    """`[1]` stands for itself: as a pattern it would leave its own and take that of `run1`."""
    own, other = tmp_path / f".run[1].tmp-{DEAD}", tmp_path / f".run1.tmp-{DEAD}"
    for left in (own, other):
        left.mkdir()
    clear(tmp_path / "run[1]")
    assert not own.exists()
    assert other.exists()
    own.mkdir()
    with new_folder(tmp_path / "run[1]") as aside:
        assert not own.exists()
        (aside / "file").write_text("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "run[1]"]
