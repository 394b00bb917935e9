"""What the compiler makes of the kernels is counted from its listings."""

import pytest

pytest.importorskip("triton")
from windeye.bench import compiled
from windeye.bench.compiler import loops

LISTING = """
.L_x_0:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], R24 ;
        /*0020*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
        /*0030*/                   STL [R1], R4 ;
        /*0040*/              @!P0 BRA `(.L_x_1) ;
        /*0050*/                   FADD R1, R2, R3 ;
.L_x_2:
        /*0060*/                   FMUL R1, R2, R3 ;
        /*0070*/               @P1 BRA `(.L_x_2) ;
        /*0080*/              @UP2 BRA.U `(.L_x_0) ;
        /*0090*/                   BRA `(.L_x_3) ;
.L_x_3:
        /*00a0*/                   EXIT ;
"""


def test_only_innermost_loops_with_products_count():
    (loop,) = loops(LISTING)
    assert (loop.instructions, loop.products, loop.waits, loop.spills) == (4, 1, 1, 1)


def test_every_kernel_has_a_row():
    measured = {name: count() for name, count in compiled.parts(quick=True)}
    table = compiled.rows({"parts": measured})
    assert len(table) == len(compiled.PRODUCTS)
    assert {len(row) for row in table} == {len(compiled.COLUMNS)}
    (part,) = measured.values()
    for kernel in part["kernels"].values():
        assert kernel["visited"] >= 1
        assert 0 <= kernel["whole"] <= 1
        assert all(share > 0 for share in compiled.issued(kernel, part["dim"]))
