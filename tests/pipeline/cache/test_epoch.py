"""The order of an epoch, as numbers: every sample once, whatever reads it and whenever it is begun anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cache.epoch import Dealer, Place, Shuffle, Source, Split, epoch_line, place_of, state_of, taken_by

splits = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)).map(lambda numbers: Split(*numbers))
shuffles = st.one_of(st.none(), st.builds(Shuffle, seed=st.integers(0, 9), window=st.integers(1, 30)))


def dealer(count: int, shuffle: Shuffle | None, uneven: str, epoch: int = 0) -> Dealer:
    line = epoch_line([Source(blocks=np.arange(count) // 7)], shuffle, epoch)
    return Dealer(line, shuffle, epoch, uneven)  # type: ignore[arg-type]


def delivered(deal: Dealer, place: Place, rank: int) -> list[int]:
    """What comes out of a rank's data loader: batches in turn from its workers."""
    split = place.phases[-1].split
    pieces = [deal.left(place, rank, worker).tolist() for worker in range(split.num_workers)]
    # A phase that was gone on with begins in the turn of the worker that is next.
    turn, inside = divmod(place.phases[-1].samples, split.batch_size)
    found: list[int] = []
    while any(pieces):
        worker = turn % split.num_workers
        found += pieces[worker][: split.batch_size - inside]
        pieces[worker] = pieces[worker][split.batch_size - inside :]
        turn, inside = turn + 1, 0
    return found


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 60),
    shuffles,
    st.sampled_from(["drop", "keep"]),
    st.lists(st.tuples(splits, st.floats(0, 1)), max_size=4),
)
def test_restarts_repeat_and_skip_nothing(
    count: int, shuffle: Shuffle | None, uneven: str, history: list[tuple[Split, float]]
) -> None:
    deal = dealer(count, shuffle, uneven)
    place, seen = Place(), list[int]()
    for split, share in history:
        place = place.under(split)
        left = [delivered(deal, place, rank) for rank in range(split.num_ranks)]
        assert [len(part) for part in left] == [deal.num_left(place, rank) for rank in range(split.num_ranks)]
        if uneven == "drop":
            assert len({len(part) for part in left}) == 1
        taken = int(share * min(len(part) for part in left))
        seen += [sample for part in left for sample in part[:taken]]
        place = place_of(state_of(place.after(taken)))
    last = delivered(deal, place.under(Split()), 0)
    assert sorted(seen + last) == list(range(count))


@pytest.mark.parametrize("num_ranks", [2, 3, 5])
@pytest.mark.parametrize("uneven", ["drop", "repeat", "keep"])
def test_49_clips(num_ranks: int, uneven: str) -> None:
    deal = dealer(49, Shuffle(seed=1, window=8), uneven)
    place = Place().under(Split(num_ranks, 2, 4))
    parts = [delivered(deal, place, rank) for rank in range(num_ranks)]
    even, over = divmod(49, num_ranks)
    assert {len(part) for part in parts} == {
        "drop": {even},
        "repeat": {even + (over > 0)},
        "keep": {even, even + 1} if over else {even},
    }[uneven]
    together = [sample for part in parts for sample in part]
    assert set(together) == set(range(49)) if uneven != "drop" else len(set(together)) == len(together)
    # After seven samples of each, on other numbers of ranks and workers.
    place = place.after(7)
    seen = [sample for part in parts for sample in part[:7]]
    rest = delivered(deal, place.under(Split(1, 3, 2)), 0)
    assert sorted({*seen, *rest}) == list(range(49))
    assert len(rest) == 49 - len(set(seen))


def test_an_epoch_that_was_gone_on_with_is_the_epoch() -> None:
    deal = dealer(53, Shuffle(seed=4, window=10), "drop")
    place = Place().under(Split(2, 3, 2))
    whole = delivered(deal, place, 1)
    for taken in range(0, 26, 2):
        assert delivered(deal, place.after(taken).under(Split(2, 3, 2)), 1) == whole[taken:]


def test_shuffling_is_bounded_and_everything_moves() -> None:
    shuffle = Shuffle(seed=2, window=20)
    line = epoch_line([Source(blocks=np.arange(700) // 7)], shuffle, 0)
    order = dealer(700, shuffle, "drop").left(Place().under(Split()), 0, 0)
    for first in range(0, 700, 20):
        assert sorted(order[first : first + 20]) == sorted(line[first : first + 20])
    assert len({int(sample) // 7 for sample in order[:20]}) <= 4
    assert np.count_nonzero(order == np.arange(700)) < 10
    assert np.corrcoef(order, np.arange(700))[0, 1] < 0.2


def test_the_order_is_the_same_on_every_machine() -> None:
    """Numbers of a first run: a state that was saved is of use as long as they stay."""
    order = dealer(20, Shuffle(seed=7, window=6), "drop", epoch=3).left(Place().under(Split()), 0, 0)
    assert order.tolist() == [19, 18, 16, 14, 15, 17, 5, 0, 3, 4, 1, 2, 8, 9, 10, 11, 7, 6, 13, 12]


def test_batches_go_around_the_workers() -> None:
    split = Split(1, 3, 4)
    for samples in range(40):
        turns = [(number // 4) % 3 for number in range(samples)]
        assert [taken_by(split, worker, samples) for worker in range(3)] == [turns.count(worker) for worker in range(3)]


def test_weights_spread_each_source_over_the_line() -> None:
    sources = [Source(blocks=np.zeros(30, int), weight=0.2), Source(blocks=np.zeros(20, int), weight=0.8)]
    line = epoch_line(sources, Shuffle(seed=0, window=9), 0)
    assert len(line) == 50
    for first in range(0, 50, 10):
        assert np.count_nonzero(line[first : first + 10] < 30) == 2
    assert all(np.count_nonzero(line == sample) >= 2 for sample in range(30, 50))
