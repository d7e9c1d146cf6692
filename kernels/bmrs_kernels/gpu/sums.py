"""The partial sums of a backward pass added up per structure, in an order that never changes."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["add_products", "add_up"]


@triton.jit
def plus(total, lost, term):
    """Add a term to a compensated sum (Neumaier, without the branch: Knuth's two-sum)."""
    moved = total + term
    part = moved - total
    return moved, lost + ((total - (moved - part)) + (term - part))


@triton.jit(do_not_specialize=["rows", "parts", "samples", "blocks"])
def add_up(
    sums_ptr,
    out_ptr,
    parts,
    structures,
    blocks,
    WALK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write sums of `WALK` tiles of `ROWS` parts, [2, parts, structures] to [2, fewer, structures]."""
    c = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    group = tl.program_id(0) // blocks
    which = tl.program_id(1)
    groups = tl.num_programs(0) // blocks
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    lost = tl.zeros((ROWS, COLUMNS), tl.float32)
    for tile in range(WALK):
        part = (group * WALK + tile) * ROWS + tl.arange(0, ROWS)[:, None]
        inside = (part < parts) & (c < structures)
        place = (which.to(tl.int64) * parts + part) * structures + c
        total, lost = plus(total, lost, tl.load(sums_ptr + place, mask=inside, other=0.0))
    sums = tl.sum(total + lost, axis=0, keep_dims=True)
    tl.store(out_ptr + (which * groups + group) * structures + c, sums, mask=c < structures)


@triton.jit(do_not_specialize=["rows", "parts", "samples", "blocks"])
def add_products(
    sums_ptr,
    by_mu_ptr,
    by_log_sigma_ptr,
    out_ptr,
    rows,
    parts,
    samples,
    structures,
    blocks,
    WALK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The same of sums [rows, structures], each times the derivatives of its sample's theta.

    Rows go through all samples, `parts` rows each, once or again and again.
    """
    c = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    group = tl.program_id(0) // blocks
    groups = tl.num_programs(0) // blocks
    total_mu = tl.zeros((ROWS, COLUMNS), tl.float32)
    lost_mu = tl.zeros((ROWS, COLUMNS), tl.float32)
    total_log_sigma = tl.zeros((ROWS, COLUMNS), tl.float32)
    lost_log_sigma = tl.zeros((ROWS, COLUMNS), tl.float32)
    for tile in range(WALK):
        row = (group * WALK + tile).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
        inside = (row < rows) & (c < structures)
        product = tl.load(sums_ptr + row * structures + c, mask=inside, other=0.0)
        place = (row // parts) % samples * structures + c
        by_mu = tl.load(by_mu_ptr + place, mask=inside, other=0.0)
        by_log_sigma = tl.load(by_log_sigma_ptr + place, mask=inside, other=0.0)
        total_mu, lost_mu = plus(total_mu, lost_mu, product * by_mu)
        total_log_sigma, lost_log_sigma = plus(total_log_sigma, lost_log_sigma, product * by_log_sigma)
    there = c < structures
    mu = tl.sum(total_mu + lost_mu, axis=0, keep_dims=True)
    log_sigma = tl.sum(total_log_sigma + lost_log_sigma, axis=0, keep_dims=True)
    tl.store(out_ptr + group * structures + c, mu, mask=there)
    tl.store(out_ptr + (groups + group) * structures + c, log_sigma, mask=there)
