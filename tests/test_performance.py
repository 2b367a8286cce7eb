import gc
import sys
import weakref

import numpy as np
import pytest

from msim_tf.performance import ReusedMemory, release_pages, row_blocks, widened


def test_every_finite_float16_is_widened_to_the_same_number():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    wide = widened(finite)
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide, finite.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(wide), np.signbit(finite))
    strided = finite[:60000].reshape(100, 600)[::3, 5:77:2]
    np.testing.assert_array_equal(widened(strided), strided.astype(np.float32))
    single = np.float32([1.5, 2])
    assert widened(single) is not single and widened(np.array(2.0)).shape == ()


def test_memory_is_given_out_again_when_nobody_holds_it():
    memory = ReusedMemory()
    first = memory.empty((3, 4), np.float16)
    address = first.ctypes.data
    second = memory.empty((3, 4), np.float16)
    assert address % 64 == second.ctypes.data % 64 == 0 and second.ctypes.data != address
    assert memory.empty((4, 3), np.int16).ctypes.data != address
    del first
    gc.collect()
    third = memory.empty((2, 6), np.int16)  # as many bytes
    assert third.ctypes.data == address and third.shape == (2, 6) and third.dtype == np.int16


def test_a_view_holds_the_memory():
    memory = ReusedMemory()
    view = memory.empty((64,), np.float32).reshape(8, 8)[2:].T[1].view(np.int32)
    view[:] = 7
    gc.collect()
    other = memory.empty((64,), np.float32)
    other[:] = 0
    assert (view == 7).all()
    held = weakref.ref(view)
    del view
    assert held() is None and memory.empty((64,), np.float32).ctypes.data != other.ctypes.data


def test_a_tensor_holds_the_memory():
    import tensorflow as tf

    memory = ReusedMemory()

    def made():
        array = memory.empty((4, 5), np.float32)
        array[:] = len(given)
        given.append(array.ctypes.data)
        return array

    given = []
    batches = list(tf.data.Dataset.range(5).map(lambda _: tf.numpy_function(made, [], tf.float32)))
    assert [float(batch[0, 0]) for batch in batches] == [0, 1, 2, 3, 4] and len(set(given)) == 5
    del batches
    given.clear()
    for batch in tf.data.Dataset.range(20).map(lambda _: tf.numpy_function(made, [], tf.float32)):
        assert (batch.numpy() == batch.numpy()[0, 0]).all()
    assert len(set(given)) < 20


def resident(name):
    return [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)][0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's count is in /proc")
def test_reading_a_mapped_file_in_blocks_keeps_no_more_than_a_block(tmp_path, rng):
    values = rng.normal(size=(400_000, 64)).astype(np.float32)  # 100 MB
    values.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", shape=values.shape)
    before = resident("RssFile")

    blocks = []
    for block in row_blocks(mapped.T.T, 9_999):
        blocks.append(block.copy())
        assert resident("RssFile") < before + 20_000

    np.testing.assert_array_equal(np.concatenate(blocks), values)
    assert mapped.min() == values.min() and resident("RssFile") > before + 80_000
    release_pages(mapped[5:])
    assert resident("RssFile") < before + 20_000
    np.testing.assert_array_equal(mapped, values)


def test_arrays_in_ordinary_memory_stay_as_they_are(rng):
    values = rng.normal(size=(50, 3))
    blocks = list(row_blocks(values, 20))
    release_pages(values.T)
    assert [len(block) for block in blocks] == [20, 20, 10]
    np.testing.assert_array_equal(np.concatenate(blocks), values)
    assert list(row_blocks(values[:0], 20)) == []
