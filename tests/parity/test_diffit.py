"""DiffiT's attention against a float64 evaluation of its published formulas (no code of it is public)."""

from __future__ import annotations

import pytest
import torch

from lab.models.blocks.time import TimeAttention, relative_places
from lab.models.layers import Condition
from lab.models.taps import Taps


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_output_and_attention_equal_the_formulas(arrays, dtype: torch.dtype, atol: float) -> None:
    file = arrays("diffit_tmsa.npz")
    side = int(file["grid"][0])
    assert torch.equal(relative_places(side), file["rel_index"])
    part = TimeAttention(16, int(file["heads"]), side, told=24).double()
    part.load_state_dict({
        "qkv.weight": file["W_spatial"], "qkv.bias": file["b_spatial"], "cond.weight": file["W_time"],
        "proj.weight": file["W_out"], "proj.bias": file["b_out"], "table": file["rel_bias_table"],
    })  # fmt: skip
    part, taps = part.to(dtype), Taps(["attn0"])
    said = file["xt"].to(dtype)
    out = part(file["xs"].to(dtype), Condition(said, None, said), taps, 0)
    torch.testing.assert_close(out.double(), file["out"], atol=atol, rtol=0)
    torch.testing.assert_close(taps["attn0"].double(), file["attn"], atol=atol, rtol=0)
