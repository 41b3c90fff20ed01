from hypothesis import given
from hypothesis import strategies as st

from pipeline.letter_json import exported, imported
from pipeline.letters import Letter

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.builds(
        Letter,
        id=TEXT,
        input=TEXT,
        record=st.binary(),
        origin=st.dictionaries(TEXT, TEXT | st.integers(-(2**53), 2**53)),
        time=st.integers(0, 4 * 10**9).map(float),
        reason=TEXT,
        document=st.none() | TEXT.map(str.encode),
        place=st.integers(0, 2**53),
        repeats=st.integers(0, 9),
    )
)
def test_what_is_exported_can_be_imported(letter):
    line = exported(letter)
    assert line.count(b"\n") == 1
    assert imported(line) == letter
