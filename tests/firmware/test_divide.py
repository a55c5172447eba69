"""firmware/divide.c: the division that the compiler calls."""
import ctypes
import random


def test_division_is_of_the_sixty_four_bits_that_the_cpu_lacks(firmware):
    divide = firmware.__getattr__("__udivdi3")
    divide.restype, divide.argtypes = ctypes.c_uint64, (ctypes.c_uint64, ctypes.c_uint64)
    rng = random.Random(1)
    edges = [1, 2, 3, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, (1 << 63) - 1, (1 << 64) - 1]
    pairs = [(a, b) for a in [0, *edges] for b in edges]
    pairs += [(rng.getrandbits(rng.randrange(1, 65)), rng.getrandbits(rng.randrange(1, 65)) | 1) for _ in range(2000)]
    assert [divide(a, b) for a, b in pairs] == [a // b for a, b in pairs]
