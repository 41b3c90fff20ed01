"""What a file input remembers of its logs."""

from pipeline.inputs._log import Log, Memory, Source
from pipeline.inputs.tail import Look
from tests.inputs.file_rig import Store


def test_a_log_that_moves_from_file_to_file_leaves_nothing_behind():
    memory, log = Memory(Store()), Log("a", "a", 0, key=(1, 0))
    memory.add(log)
    for inode in range(1, 9):
        memory.take(log, Source((1, inode), "app.log", Look(0, 0)))
    assert memory.candidates("other", (1, 8)) == [log]
    assert memory._in == {(1, 8): [log]}
    memory.expire({}, -1)
    assert not memory._in
    assert not memory._alike
