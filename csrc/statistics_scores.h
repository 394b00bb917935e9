// Logits between a block of rows and one vector of lanes, in units of log 2, and the rows themselves.
#pragma once

#include "products.h"
#include "statistics_problem.h"
#include "tokens.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace statistics {

using windeye::statistics::Problem;

// The logit of a pair that is not seen: finite, so that zero weights can be multiplied by it.
template <class T> constexpr T HIDDEN = T(-1e30);

// tanh(x) / x is even and smooth: near zero a polynomial of x^2 (fitted over |x| < 0.65, relative error below 1e-7), since
// 1 - 2 / (1 + exp 2x) has lost its digits there.
inline Vec<float> hyperbolic_tangent(Vec<float> x) {
    using V = Vec<float>;
    const V square = x * x;
    V p = splat<float>(-5.499999678e-03f);
    for (float c : {2.045485597e-02f, -5.368316750e-02f, 1.333076522e-01f, -3.333325698e-01f, 1.0f}) p = p * square + c;
    const V limited = x > 20.0f ? splat<float>(20.0f) : x < -20.0f ? splat<float>(-20.0f) : x;
    const V far = 1.0f - 2.0f / (1.0f + exp2(limited * (2 * Lanes<float>::log2e)));
    return square < 0.4f ? x * p : far;
}

inline Vec<double> hyperbolic_tangent(Vec<double> x) {
    Vec<double> y;
    for (int i = 0; i < Lanes<double>::N; ++i) y[i] = std::tanh(x[i]);
    return y;
}

// Dot products become logits in two steps: a factor on one side of the product, and what remains where there is a cap.
template <class T> struct Logit {
    T factor, cap = 0;

    explicit Logit(const Problem &p) {
        factor = T(p.softcap > 0 ? p.scale / p.softcap : p.scale * Lanes<T>::log2e);
        cap = T(p.softcap * Lanes<T>::log2e);
    }

    void finish(Vec<T> *s, int count) const {
        if (cap == T(0)) return;
        for (int r = 0; r < count; ++r) s[r] = cap * hyperbolic_tangent(s[r]);
    }
};

// Bits [begin, end) of a word, for 0 <= begin and end <= 64; none where begin >= end.
inline uint64_t bits_between(int32_t begin, int32_t end) {
    if (begin >= end) return 0;
    return (~uint64_t(0) >> (64 - (end - begin))) << begin;
}

// A tile of neighbouring tokens, one per lane.
template <class T> inline void neighbours(int32_t begin, int32_t end, Tile &tile) {
    constexpr int N = Lanes<T>::N;
    tile.vectors = int(end - begin + N - 1) / N;
    tile.lanes = tile.vectors * N;
    tile.filled = 0;
    for (int l = 0; l < end - begin; ++l) {
        tile.coord[0][l] = tile.coord[1][l] = 0;
        tile.coord[2][l] = begin + l;
        tile.token[l] = begin + l;
        tile.filled |= uint64_t(1) << l;
    }
    tile.live = tile.filled;
}

// Copies of rows that several vectors of lanes work on, one after the other, in the type of computation.
template <class S, class T> struct Packed {
    Buffer<T> numbers;
    const T *row[BLOCK];

    explicit Packed(int dim) {
        numbers.resize(int64_t(BLOCK) * dim);
        for (int r = 0; r < BLOCK; ++r) row[r] = numbers.data + int64_t(r) * dim;
    }

    // `token(i)` is the i-th of `count` tokens and goes to row `to + i`.
    template <class Token> void bring(const Tensor &x, int32_t batch, int32_t head, int dim, int to, int count, Token &&token) {
        const S *from = reinterpret_cast<const S *>(x.data) + batch * x.batch + head * x.head;
        if (x.dim == 1)
            for (int i = 0; i < count; ++i)
                for (int d = 0; d < dim; d += 64 / int(sizeof(S))) __builtin_prefetch(from + token(i) * x.axis[2] + d, 0, 2);
        for (int i = 0; i < count; ++i) unpack(from + token(i) * x.axis[2], x.dim, dim, numbers.data + int64_t(to + i) * dim);
    }
};

} // namespace statistics
} // namespace WINDEYE_ISA
} // namespace windeye
