"""Columns of tables: against plain indexing."""

import numpy as np
import pytest

from badpix.numerics.columns import take_columns


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "u1"])
@pytest.mark.parametrize("apart", [False, True])
def test_columns_are_those_of_plain_indexing(dtype, apart):
    table = np.arange(120).astype(dtype).reshape(4, 30)
    table = table[:, 5:25] if apart else table
    columns = np.array([3, 0, 19, 19, 7])
    found = take_columns(table, columns)
    assert found.dtype == table.dtype
    assert found.tobytes() == np.ascontiguousarray(table[:, columns]).tobytes()
    assert take_columns(table, columns[:0]).shape == (4, 0)


@pytest.mark.parametrize("column", [-1, 20])
def test_columns_that_are_not_there_are_errors(column):
    table = np.zeros((2, 30))[:, :20]
    with pytest.raises(IndexError, match=str(column)):
        take_columns(table, np.array([0, column]))
