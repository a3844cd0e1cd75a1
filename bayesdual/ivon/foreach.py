"""Arithmetic on lists of tensors in one call each: PyTorch's own, which have no public name."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import torch

add_ = torch._foreach_add_
addcdiv_ = torch._foreach_addcdiv_
addcmul_ = torch._foreach_addcmul_
clamp_max_ = torch._foreach_clamp_max_
clamp_min_ = torch._foreach_clamp_min_
copy_ = torch._foreach_copy_
div = torch._foreach_div
div_ = torch._foreach_div_
mul = torch._foreach_mul
mul_ = torch._foreach_mul_
