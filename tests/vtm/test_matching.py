import pytest
import torch

from vtm import matching
from vtm.matching import nearest_directions, nearest_targets

ROUNDING = 1e-6


def keys(batch=2, tokens=131, width=17, dtype=torch.float32):
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("block", [1, 37, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_blocks_of_any_size_find_the_cosine_argmax(monkeypatch, block, dtype):
    monkeypatch.setattr(matching, "BLOCK_SIMILARITIES", {"cpu": block})
    keys_BND = keys(dtype=dtype)
    target_BM = torch.tensor([[0, 5, 77], [1, 2, 130]])
    source_BS = torch.tensor([[1, 9, 3, 130, 128], [0, 3, 4, 5, 128]])
    position_BS, cosine_BS = nearest_targets(keys_BND, source_BS, target_BM)
    wide_BND = keys_BND.double()
    for b in range(2):
        cosine_SM = torch.cosine_similarity(wide_BND[b, source_BS[b]][:, None], wide_BND[b, target_BM[b]][None], dim=2)
        assert position_BS[b].tolist() == cosine_SM.argmax(dim=1).tolist()
        torch.testing.assert_close(cosine_BS[b].double(), cosine_SM.amax(dim=1), rtol=0, atol=ROUNDING)


def test_equals_go_to_the_first_target():
    keys_BND = keys(batch=1)[:, :1].expand(1, 50, 17).contiguous()
    position_BS, _ = nearest_targets(keys_BND, torch.arange(3, 50)[None], torch.tensor([[0, 1, 2]]))
    assert position_BS.unique().tolist() == [0]


def test_a_zero_key_is_matched_and_harms_no_other():
    keys_BND = keys(batch=1)
    keys_BND[0, [4, 9]] = 0
    position_BS, cosine_BS = nearest_targets(keys_BND, torch.tensor([[4, 5]]), torch.tensor([[8, 9]]))
    assert position_BS[0, 0] == 0
    assert cosine_BS[0, 0] == 0
    assert torch.isfinite(cosine_BS).all()


def test_the_norm_of_a_key_changes_nothing():
    keys_BND = keys(batch=1, dtype=torch.float64)
    scaled_BND = keys_BND * torch.logspace(-3, 3, 131, dtype=torch.float64)[:, None]
    indices = (torch.arange(1, 131)[None], torch.arange(0, 131, 10)[None])
    for plain, scaled in zip(nearest_targets(keys_BND, *indices), nearest_targets(scaled_BND, *indices), strict=True):
        torch.testing.assert_close(plain, scaled)


def test_all_tokens_are_matched_by_default_and_none_is_fine():
    keys_BND = keys()
    directions_BMD = torch.nn.functional.normalize(keys_BND[:, :7], dim=2)
    position_BN, _ = nearest_directions(keys_BND, directions_BMD)
    assert position_BN.shape == (2, 131)
    assert position_BN[:, :7].tolist() == [list(range(7))] * 2
    assert nearest_directions(keys_BND, directions_BMD, position_BN[:, :0])[0].shape == (2, 0)


def test_no_gradient_is_taken():
    keys_BND = keys().requires_grad_()
    _, cosine_BS = nearest_targets(keys_BND, torch.tensor([[1], [1]]), torch.tensor([[0], [0]]))
    assert not cosine_BS.requires_grad
