// The two matrix products of attention, with lanes across and rows down.
//
//   logits:     s[row][lane] += x[row][d] * y[d][lane]      the row's number is broadcast, nothing is transposed
//   accumulate: o[d][lane]   += x[row][d] * p[row][lane]
//
// Accumulators stay in registers; every load feeds a multiply-add.
#pragma once

#include "vector.h"

namespace windeye {
namespace WINDEYE_ISA {

#if defined(__AVX512F__)
constexpr int ROWS_AT_ONCE = 8, DIMS_AT_ONCE = 16; // 32 registers
#elif defined(__AVX2__)
constexpr int ROWS_AT_ONCE = 4, DIMS_AT_ONCE = 4; // a vector is two of 16 registers
#elif defined(__aarch64__)
constexpr int ROWS_AT_ONCE = 4, DIMS_AT_ONCE = 4; // a vector is four of 32 registers
#else
constexpr int ROWS_AT_ONCE = 2, DIMS_AT_ONCE = 2; // a vector is four of 16 registers
#endif

template <class T, int R> inline void logits_of(const T *const *rows, int dim, const Vec<T> *y, Vec<T> *s) {
    const T *x[R];
    for (int r = 0; r < R; ++r) x[r] = rows[r];
    Vec<T> sum[R] = {};
    for (int d = 0; d < dim; ++d) {
        const Vec<T> lane = y[d];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r] += x[r][d] * lane;
    }
    for (int r = 0; r < R; ++r) s[r] = sum[r];
}

// s[row] = <x[row], y[., lane]> for `count` rows.
template <class T> void logits(const T *const *rows, int count, int dim, const Vec<T> *y, Vec<T> *s) {
    int r = 0;
    for (; r + ROWS_AT_ONCE <= count; r += ROWS_AT_ONCE) logits_of<T, ROWS_AT_ONCE>(rows + r, dim, y, s + r);
    for (; r < count; ++r) logits_of<T, 1>(rows + r, dim, y, s + r);
}

template <class T, int C, bool CAREFUL>
inline void accumulate_of(const T *const *rows, int count, int d, const Vec<T> *p, const uint64_t *seen, Vec<T> *o) {
    Vec<T> sum[C];
    for (int c = 0; c < C; ++c) sum[c] = o[c];
    for (int r = 0; r < count; ++r) {
        const T *x = rows[r] + d;
        asm("" : "+r"(x)); // one address for all dimensions: left alone, compilers keep sixteen and run out of registers
        const Vec<T> w = p[r];
        if constexpr (CAREFUL) {
            // Zero times NaN is NaN: a lane that does not see the row must not even multiply by it.
            const IVec<T> lanes = expand<T>(seen[r]);
            for (int c = 0; c < C; ++c) sum[c] = lanes ? sum[c] + x[c] * w : sum[c];
        } else {
#pragma GCC unroll 16
            for (int c = 0; c < C; ++c) sum[c] += x[c] * w;
        }
    }
    for (int c = 0; c < C; ++c) o[c] = sum[c];
}

template <class T, bool CAREFUL>
void accumulate_as(const T *const *rows, int count, int dim, const Vec<T> *p, const uint64_t *seen, Vec<T> *o) {
    int d = 0;
    for (; d + DIMS_AT_ONCE <= dim; d += DIMS_AT_ONCE)
        accumulate_of<T, DIMS_AT_ONCE, CAREFUL>(rows, count, d, p, seen, o + d);
    for (; d < dim; ++d) accumulate_of<T, 1, CAREFUL>(rows, count, d, p, seen, o + d);
}

template <class T>
void accumulate(const T *const *rows, int count, int dim, const Vec<T> *p, const uint64_t *seen, Vec<T> *o, bool careful) {
    if (careful) accumulate_as<T, true>(rows, count, dim, p, seen, o);
    else accumulate_as<T, false>(rows, count, dim, p, seen, o);
}

} // namespace WINDEYE_ISA
} // namespace windeye
