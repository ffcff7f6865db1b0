"""What one core of this machine can multiply and add at most: a loop of fused multiply-adds that stays in registers.

    python benchmarks/peak.py

Compiles a few lines of C with `cc`; float32 (AVX-512 or AVX2), bfloat16 (vdpbf16ps) and int8 (vpdpbusd) where the
processor has them. CPU time of the process is counted, best of three.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = r"""
#include <immintrin.h>
#include <time.h>
#define LANES 12
#define ROUNDS 20000000L
static double cpu(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}
#define LOOP(STEP, OPERATIONS)                                                     \
  for (int i = 0; i < LANES; i++) a[i] = START(i);                                 \
  double begin = cpu();                                                            \
  for (long k = 0; k < ROUNDS; k++) { _Pragma("GCC unroll 12") for (int i = 0; i < LANES; i++) STEP; } \
  double seconds = cpu() - begin;                                                  \
  for (int i = 0; i < LANES; i++) sink += ((volatile float *)&a[i])[0];            \
  return ROUNDS * LANES * (OPERATIONS) / seconds * 1e-9;
volatile float sink;
volatile int seed = 0x01010101;
#ifdef __AVX512F__
#define START(i) _mm512_set1_ps(0.5f + i + seed)
double fp32(void) { __m512 a[LANES], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
  LOOP(a[i] = _mm512_fmadd_ps(a[i], x, y), 32.0) }
#else
#define START(i) _mm256_set1_ps(0.5f + i + seed)
double fp32(void) { __m256 a[LANES], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
  LOOP(a[i] = _mm256_fmadd_ps(a[i], x, y), 16.0) }
#endif
#ifdef __AVX512BF16__
double bf16(void) { __m512 a[LANES]; __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f003f00);
  LOOP(a[i] = _mm512_dpbf16_ps(a[i], x, x), 64.0) }
#else
double bf16(void) { return 0; }
#endif
#ifdef __AVX512VNNI__
#undef START
#define START(i) _mm512_set1_epi32(i + seed)
double int8(void) { __m512i a[LANES], x = _mm512_set1_epi32(seed);
  LOOP(a[i] = _mm512_dpbusd_epi32(a[i], x, x), 128.0) }
#else
double int8(void) { return 0; }
#endif
"""


def peaks() -> dict[str, float | None] | None:
    """Thousand millions of operations (two per multiply-add) a second of one core, by precision; None without `cc`."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        code, library = Path(folder) / "peak.c", Path(folder) / "peak.so"
        code.write_text(SOURCE, encoding="utf-8")
        words = [
            compiler,
            "-O2",
            "-fno-strict-aliasing",
            "-march=native",
            "-shared",
            "-fPIC",
            str(code),
            "-o",
            str(library),
        ]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            return None
        loaded = ctypes.CDLL(str(library))
        found: dict[str, float | None] = {}
        for name in ("fp32", "bf16", "int8"):
            measure = getattr(loaded, name)
            measure.restype = ctypes.c_double
            found[name] = max(measure() for _ in range(3)) or None
        return found


if __name__ == "__main__":
    for name, value in (peaks() or {}).items():
        print(f"{name:6}{value or 0:8.1f} thousand million operations a second")
