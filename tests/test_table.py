from hypothesis import given
from hypothesis import strategies as st

from pipeline.table import checksum, lots, sealed, sound


@given(st.lists(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.floats(allow_nan=False))))
def test_sealed_values_are_sound(values):
    assert sound(sealed(values))


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_flipped_bit_is_noticed(value, data):
    row = sealed(("key", value))
    at, bit = data.draw(st.integers(0, len(value) - 1)), data.draw(st.integers(0, 7))
    flipped = value[:at] + bytes([value[at] ^ 1 << bit]) + value[at + 1 :]
    assert not sound(("key", flipped, row[-1]))


def test_where_one_value_ends_counts():
    assert checksum(("ab", "c")) != checksum(("a", "bc"))


# --- a file that is all right ---


def test_rows_go_into_few_sizes_of_statements_since_each_stays_in_memory():
    sizes = set()
    for count in range(1500):
        found = list(lots(range(count)))
        assert [row for lot in found for row in lot] == list(range(count))
        assert len(found) <= 2 + 7 + 3 + 3 + 3
        sizes |= set(map(len, found))
    assert len(sizes) == 5
