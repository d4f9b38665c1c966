"""The merge tree: nested cuts, a fidelity that is known beforehand, and the same bits whatever surrounds a clip."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vtm import MergeError, MergePlan, MergeTree, agglomeration, fidelity, identity_plan, merge_plan, merge_tree
from vtm.agglomeration import agglomerate

GRID = (5, 3, 7)
TOKENS = 105
FLOAT32_SUMS = 2e-5


def scene(batch: int = 1, tokens: int = TOKENS, seed: int = 0, dim: int = 11) -> torch.Tensor:
    """Tokens around a few dozen directions, as frames of a scene are."""
    generator = torch.Generator().manual_seed(seed)
    middle_KC = torch.randn(30, dim, generator=generator)
    which_BN = torch.randint(30, (batch, tokens), generator=generator)
    return middle_KC[which_BN] + 0.3 * torch.randn(batch, tokens, dim, generator=generator)


def measured(x_BNC: torch.Tensor, plan: MergePlan, weights_BN: torch.Tensor | None = None) -> torch.Tensor:
    """Mean cosine between tokens and the mean direction of their group, in float64, token by token."""
    unit_BNC = F.normalize(x_BNC.double(), dim=2)
    weights_BN = torch.ones(x_BNC.shape[:2]) if weights_BN is None else weights_BN
    mean_BNC = F.normalize(plan.spread(plan.sum(unit_BNC * weights_BN[..., None])), dim=2)
    cosine_BN = (unit_BNC * mean_BNC).sum(dim=2)
    return (cosine_BN * weights_BN).sum(dim=1) / weights_BN.sum(dim=1)


def same(left: MergePlan, right: MergePlan) -> bool:
    return torch.equal(left.group, right.group) and torch.equal(left.targets, right.targets)


def test_a_cut_is_a_plan_of_that_many_groups() -> None:
    x_BNC = scene(batch=2)
    tree = merge_tree(x_BNC, grid=GRID, base=0.5, seed=[3, 4])
    for left in range(1, tree.base.num_groups + 1):
        plan = tree.plan(num_tokens=left)
        assert plan.num_groups == left
        assert plan.sizes.min() >= 1
        assert plan.sizes.sum(dim=1).tolist() == [TOKENS, TOKENS]
        assert torch.equal(plan.group.gather(1, plan.targets), torch.arange(left).expand(2, -1))
    assert same(tree.plan(num_tokens=tree.base.num_groups), tree.base)
    assert tree.plan(keep=0.1).num_groups == 11


def test_a_cut_of_a_cut_is_the_cut() -> None:
    tree = merge_tree(scene(batch=2), grid=GRID, base=0.4)
    total = tree.base.num_groups
    for finer in range(1, total + 1):
        cut = tree.coarsen(num_tokens=finer)
        for coarser in range(1, finer + 1):
            assert same(cut.plan(num_tokens=coarser), tree.plan(num_tokens=coarser))
            assert torch.allclose(cut.fidelity_at(coarser), tree.fidelity_at(coarser), rtol=0, atol=1e-9)


def test_fidelity_is_known_without_the_tokens() -> None:
    x_BNC = scene(batch=2)
    tree = merge_tree(x_BNC, grid=GRID, base=1.0)
    for left in range(1, TOKENS + 1):
        torch.testing.assert_close(
            tree.fidelity_at(left), measured(x_BNC, tree.plan(num_tokens=left)), rtol=0, atol=FLOAT32_SUMS
        )


def test_each_merge_is_what_its_loss_says() -> None:
    x_BNC = scene()
    tree = merge_tree(x_BNC, grid=GRID, base=1.0)
    for left in (70, 33, 8, 2):
        finer, coarser = tree.plan(num_tokens=left), tree.plan(num_tokens=left - 1)
        lost = (measured(x_BNC, finer) - measured(x_BNC, coarser)) * TOKENS
        dearest = tree.losses[tree.losses < torch.inf].sort(descending=True).values[left - 2]
        assert float(lost) == pytest.approx(float(dearest), abs=1e-3)


def test_a_wanted_fidelity_takes_as_few_as_reach_it() -> None:
    x_BNC = scene()
    tree = merge_tree(x_BNC, grid=GRID, base=0.6)
    for wanted in (0.6, 0.8, 0.9, 0.95):
        plan = tree.plan(fidelity=wanted)
        assert float(measured(x_BNC, plan)) >= wanted - FLOAT32_SUMS
        assert float(measured(x_BNC, tree.plan(num_tokens=plan.num_groups - 1))) < wanted
    both = merge_tree(torch.cat((scene(), scene(seed=7, dim=11))), grid=GRID, base=0.6)
    assert float(both.base_fidelity.min()) < 1
    assert bool((both.fidelity_at(both.plan(fidelity=0.9).num_groups) >= 0.9 - FLOAT32_SUMS).all())


def test_one_loss_takes_the_merges_up_to_it() -> None:
    tree = merge_tree(scene(), grid=GRID, base=0.6)
    finite = tree.losses[0][tree.losses[0] < torch.inf].sort().values
    assert tree.plan(max_loss=0).num_groups == tree.base.num_groups
    assert tree.plan(max_loss=float(finite[9])).num_groups == tree.base.num_groups - 10
    assert tree.plan(max_loss=float(finite[-1])).num_groups == 1


def test_better_than_groups_made_anew_for_each_number() -> None:
    x_BNC = scene(tokens=1680, dim=24)
    tree = merge_tree(x_BNC, grid=(20, 6, 14))
    for keep in (0.15, 0.1, 0.05, 0.02):
        anew = merge_plan(x_BNC, strategy="coverage", grid=(20, 6, 14), keep=keep)
        assert fidelity(x_BNC, tree.plan(keep=keep)) > fidelity(x_BNC, anew)


def test_near_the_best_pair_at_every_step() -> None:
    """Against the textbook: always the one cheapest pair, all losses computed anew."""
    x_BNC = scene(tokens=60)
    tree = merge_tree(x_BNC, grid=(5, 3, 4), base=1.0)
    sums = list(F.normalize(x_BNC[0].double(), dim=1))
    greedy = {}
    while len(sums) > 1:
        total_KC = torch.stack(sums)
        norm_K = total_KC.norm(dim=1)
        loss = norm_K[:, None] + norm_K - (total_KC[:, None] + total_KC).norm(dim=2)
        loss.fill_diagonal_(torch.inf)
        i, j = divmod(int(loss.argmin()), len(sums))
        sums = [s for k, s in enumerate(sums) if k not in (i, j)] + [sums[i] + sums[j]]
        greedy[len(sums)] = float(sum(s.norm() for s in sums)) / 60
    for left in (40, 20, 10, 5, 2):
        assert float(tree.fidelity_at(left)) > greedy[left] - 2e-3


def test_no_bit_depends_on_the_batch_or_the_threads() -> None:
    x_BNC = scene(batch=3, tokens=1680, dim=24)
    settings: dict[str, Any] = {"grid": (20, 6, 14), "base": 0.4}
    together = merge_tree(x_BNC, seed=[1, 2, 3], **settings)
    before = torch.get_num_threads()
    for clip in range(3):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            alone = merge_tree(x_BNC[clip : clip + 1], seed=clip + 1, **settings)
            torch.set_num_threads(before)
            assert torch.equal(alone.base.group[0], together.base.group[clip])
            assert torch.equal(alone.parents[0], together.parents[clip])
            assert torch.equal(alone.losses[0], together.losses[clip])
            assert torch.equal(alone.base_fidelity[0], together.base_fidelity[clip])


def rounds_of_a_gpu(sum_MC: torch.Tensor, shrinking: tuple[tuple[int, float], ...]) -> tuple[torch.Tensor, ...]:
    return agglomeration.agglomerate_masked(sum_MC, torch.ones(len(sum_MC)), shrinking=shrinking)


@pytest.mark.parametrize("shrinking", [(), agglomeration.SHRINKING, ((1, 0.9), (3, 0.75))])
def test_masked_rows_merge_as_dropped_ones_do(
    shrinking: tuple[tuple[int, float], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU computes, with rows masked and dropped by a fixed schedule, on the CPU."""
    monkeypatch.setattr(agglomeration, "LEAST_ROWS", 3)
    sum_MC = F.normalize(scene()[0].double(), dim=1)
    counted = agglomerate(sum_MC, torch.ones(TOKENS))
    parent_M, loss_M, complete = rounds_of_a_gpu(sum_MC, shrinking)
    assert bool(complete)
    assert torch.equal(parent_M, counted[0])
    torch.testing.assert_close(loss_M, counted[1])


def test_dropping_too_many_rows_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agglomeration, "LEAST_ROWS", 3)
    sum_MC = F.normalize(scene()[0].double(), dim=1)
    assert not bool(rounds_of_a_gpu(sum_MC, ((1, 0.3),))[2])


def test_what_rounds_leave_merges_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agglomeration, "MAX_ROUNDS", 1)
    x_BNC = scene()
    tree = merge_tree(x_BNC, grid=GRID, base=1.0)
    check_tree(tree)
    for left in (60, 20, 3, 1):
        told, got = float(tree.fidelity_at(left)), float(measured(x_BNC, tree.plan(num_tokens=left)))
        assert told <= got + FLOAT32_SUMS


def check_tree(tree: MergeTree) -> None:
    """One root a clip; losses different and growing along the parents; every cut whole."""
    index_BM = torch.arange(tree.base.num_groups).expand_as(tree.parents)
    roots_BM = tree.parents == index_BM
    assert roots_BM.sum(dim=1).eq(1).all()
    assert torch.equal(tree.losses.isinf(), roots_BM)
    above_BM = tree.losses.gather(1, tree.parents)
    assert (above_BM > tree.losses)[~roots_BM].all()
    assert (tree.losses >= torch.finfo(torch.float32).tiny).all()
    assert (tree.losses.sort(dim=1).values.diff(dim=1) > 0).all()


@st.composite
def clips(draw: st.DrawFn) -> tuple[torch.Tensor, tuple[int, int, int], torch.Tensor | None]:
    """Small clips of few different tokens: duplicates, zero vectors, opposite ones, single tokens."""
    grid = (draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    total, dim = grid[0] * grid[1] * grid[2], draw(st.integers(1, 3))
    values = draw(st.lists(st.integers(-2, 2), min_size=total * dim, max_size=total * dim))
    scale = draw(st.sampled_from([1e-6, 1.0, 1e6]))
    x_1NC = torch.tensor(values, dtype=torch.float32).view(1, total, dim) * scale
    if not draw(st.booleans()):
        return x_1NC, grid, None
    weights = draw(st.lists(st.sampled_from([0.0, 1e-3, 1.0, 50.0]), min_size=total, max_size=total))
    weights_1N = torch.tensor(weights)[None]
    return x_1NC, grid, weights_1N if float(weights_1N.sum()) > 0 else None


@settings(max_examples=120, deadline=None)
@given(clips(), st.sampled_from([0.3, 0.7, 1.0]), st.sampled_from([None, 0, 1]))
def test_any_clip(
    clip: tuple[torch.Tensor, tuple[int, int, int], torch.Tensor | None], base: float, max_gap_frames: int | None
) -> None:
    x_1NC, grid, weights_1N = clip
    tree = merge_tree(x_1NC, grid=grid, base=base, weights=weights_1N, max_gap_frames=max_gap_frames)
    check_tree(tree)
    total = tree.base.num_groups
    for left in {1, (total + 1) // 2, total}:
        plan = tree.plan(num_tokens=left)
        assert plan.sizes.min() >= 1
        told = float(tree.fidelity_at(left))
        got = float(measured(x_1NC, plan, weights_1N))
        # Losses only grow along the parents: where a merge made a cheaper one possible, less is told than there is.
        assert told <= got + FLOAT32_SUMS
        if left == total:
            assert told == pytest.approx(got, abs=FLOAT32_SUMS)
        assert same(tree.coarsen(num_tokens=left).plan(num_tokens=1), tree.plan(num_tokens=1))


def test_a_black_clip_takes_no_more_rounds_than_another() -> None:
    """Equal tokens all look alike to each other; one pair a round would take minutes, and the bound would be hit."""
    x_BNC = torch.ones(1, 1536, 8)
    tree = merge_tree(x_BNC, grid=(6, 16, 16), base=1.0)
    check_tree(tree)
    assert int(tree.plan(num_tokens=300).sizes.max()) < 60
    assert float(tree.fidelity_at(1)) == pytest.approx(1)


def test_two_pictures_fall_into_two_groups() -> None:
    x_BNC = torch.zeros(1, TOKENS, 2)
    x_BNC[:, ::3, 0] = 1
    x_BNC[:, 1::3, 1] = 3
    x_BNC[:, 2::3, 1] = 1
    tree = merge_tree(x_BNC, grid=GRID, base=1.0)
    assert torch.equal(tree.plan(fidelity=1.0).group[0] > 0, torch.arange(TOKENS) % 3 > 0)
    assert tree.plan(fidelity=1.0).num_groups == 2


def test_weights_say_where_tokens_are_spent() -> None:
    x_BNC = scene()
    weights_BN = torch.full((1, TOKENS), 0.01)
    weights_BN[:, 70:] = 1
    tree = merge_tree(x_BNC, grid=GRID, base=1.0, weights=weights_BN)
    plain = merge_tree(x_BNC, grid=GRID, base=1.0)
    kept_up = [float(measured(x_BNC, each.plan(num_tokens=20), weights_BN)) for each in (tree, plain)]
    assert kept_up[0] > kept_up[1] + 0.02
    torch.testing.assert_close(
        tree.fidelity_at(20), measured(x_BNC, tree.plan(num_tokens=20), weights_BN), rtol=0, atol=FLOAT32_SUMS
    )
    scaled = merge_tree(x_BNC, grid=GRID, base=1.0, weights=64 * weights_BN)
    assert torch.equal(scaled.parents, tree.parents)


def test_a_gap_bounds_what_merges() -> None:
    x_BNC = scene(tokens=400, dim=6)
    grid = (20, 4, 5)
    frame_N = torch.arange(400) // 20
    for gap in (0, 2):
        tree = merge_tree(x_BNC, grid=grid, base=identity_plan(1, 400), max_gap_frames=gap)
        check_tree(tree)
        for left in (200, 60, 20, 5, 1):
            group_N = tree.plan(num_tokens=left).group[0]
            for m in range(left):
                frames = frame_N[group_N == m].unique()
                assert left == 1 or len(frames) == 1 or int(frames.diff().max()) <= gap + 1
    across = merge_tree(x_BNC, grid=grid, base=identity_plan(1, 400))
    group_N = across.plan(num_tokens=60).group[0]
    lengths = [int(frame_N[group_N == m].max() - frame_N[group_N == m].min()) for m in range(60)]
    assert max(lengths) > 10


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"grid": (5, 3, 6)}, "does not hold the 105 tokens"),
        ({"base": 0.0}, "above 0 and at most 1"),
        ({"base": identity_plan(1, 7)}, r"the base merges \(1, 7\) tokens"),
        ({"weights": torch.ones(1, 9)}, "one value for each"),
        ({"weights": -torch.ones(1, TOKENS)}, "0 or more"),
        ({"weights": torch.zeros(1, TOKENS)}, "all 0"),
        ({"weights": torch.full((1, TOKENS), torch.nan)}, "finite"),
        ({"max_gap_frames": -1}, "max_gap_frames"),
        ({"seed": [1, 2]}, "one seed"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(MergeError, match=text):
        merge_tree(scene(), **{"grid": GRID, **changes})


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    x_BNC = scene()
    x_BNC[0, 17, 3] = bad
    with pytest.raises(MergeError, match=r"^features: 1 of "):
        merge_tree(x_BNC, grid=GRID)
    for shape in ((0, 5, 3), (1, 0, 3), (1, 5, 0), (5, 3)):
        with pytest.raises(MergeError, match="at least one of each"):
            merge_tree(torch.zeros(shape), grid=(5, 1, 1))


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ({}, "give one of"),
        ({"keep": 0.1, "num_tokens": 3}, "keep and num_tokens"),
        ({"num_tokens": 0}, "from 1 to 53"),
        ({"num_tokens": 54}, "from 1 to 53"),
        ({"keep": 0.9}, "from 1 to 53"),
        ({"keep": 1.5}, "at most 1"),
        ({"fidelity": 1.1}, "at most 1"),
        ({"fidelity": 0.9999}, "finer base"),
        ({"max_loss": -1.0}, "0 or more"),
        ({"max_loss": torch.nan}, "0 or more"),
    ],
)
def test_cuts_that_are_refused(amount: dict[str, Any], text: str) -> None:
    with pytest.raises(MergeError, match=text):
        merge_tree(scene(), grid=GRID, base=0.5).plan(**amount)


def test_order_by_centre_is_the_same_tree() -> None:
    x_BNC = scene(batch=2)
    tree = merge_tree(x_BNC, grid=GRID, base=0.5)
    ordered = tree.ordered_by_center(GRID)
    check_tree(ordered)
    assert same(ordered.base, tree.base.ordered_by_center(GRID))
    for left in (40, 9, 1):
        assert same(
            ordered.plan(num_tokens=left).ordered_by_center(GRID), tree.plan(num_tokens=left).ordered_by_center(GRID)
        )


def test_what_is_given_stays_as_it_was() -> None:
    """A CPU merges in place, and must not in what the caller holds."""
    sum_MC = torch.randn(23, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    frames_M2 = torch.arange(23)[:, None].repeat(1, 2)
    before = sum_MC.clone(), frames_M2.clone()
    agglomerate(sum_MC, torch.ones(23, dtype=torch.float64), frames_M2, max_gap_frames=2)
    assert torch.equal(sum_MC, before[0])
    assert torch.equal(frames_M2, before[1])
