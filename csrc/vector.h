// Vectors of sixteen floats or eight doubles in the compiler's own vector extension: the same source becomes AVX-512,
// two AVX2 registers, or four SSE or NEON registers. Everything here is per lane; a lane is one query (or one key).
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace windeye {
namespace WINDEYE_ISA {

template <class T> struct Lanes;

template <> struct Lanes<float> {
    static constexpr int N = 16;
    using V = float __attribute__((vector_size(64), aligned(64)));
    using I = int32_t __attribute__((vector_size(64), aligned(64)));
    using Bits = uint16_t;
    static constexpr float log2e = 1.4426950408889634f, ln2 = 0.6931471805599453f;
};

template <> struct Lanes<double> {
    static constexpr int N = 8;
    using V = double __attribute__((vector_size(64), aligned(64)));
    using I = int64_t __attribute__((vector_size(64), aligned(64)));
    using Bits = uint8_t;
    static constexpr double log2e = 1.4426950408889634, ln2 = 0.6931471805599453;
};

template <class T> using Vec = typename Lanes<T>::V;
template <class T> using IVec = typename Lanes<T>::I;

template <class T> constexpr uint64_t FULL = (uint64_t(1) << Lanes<T>::N) - 1; // every lane of one vector

template <class T> inline Vec<T> splat(T x) { return Vec<T>{} + x; }

template <class T> inline Vec<T> max(Vec<T> a, Vec<T> b) { return a > b ? a : b; }

// Lanes named by the low bits of `bits` as a full mask.
template <class T> inline IVec<T> expand(uint64_t bits);
template <> inline IVec<float> expand<float>(uint64_t bits) {
    const IVec<float> lane = {1, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7,
                              1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};
    return ((IVec<float>{} + int32_t(bits & 0xFFFF)) & lane) != 0;
}
template <> inline IVec<double> expand<double>(uint64_t bits) {
    const IVec<double> lane = {1, 2, 4, 8, 16, 32, 64, 128};
    return ((IVec<double>{} + int64_t(bits & 0xFF)) & lane) != 0;
}

// x in the lanes named by `bits`, `otherwise` in the others.
template <class T> inline Vec<T> where(uint64_t bits, Vec<T> x, Vec<T> otherwise) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_mask_blend_ps(__mmask16(bits), (__m512)otherwise, (__m512)x);
    else return (Vec<T>)_mm512_mask_blend_pd(__mmask8(bits), (__m512d)otherwise, (__m512d)x);
#else
    if (bits == FULL<T>) return x;
    return expand<T>(bits) ? x : otherwise;
#endif
}

template <class T> inline bool any(IVec<T> mask) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#else
    int64_t seen = 0;
    int64_t words[8];
    std::memcpy(words, &mask, 64);
    for (int i = 0; i < 8; ++i) seen |= words[i];
    return seen != 0;
#endif
}

// Transposes N vectors in place, as log2(N) rounds of interleaving row i with row i + N/2.
#if defined(__AVX512F__)
inline void transpose(Vec<float> *r) {
    using V = Vec<float>;
    for (int round = 0; round < 4; ++round) {
        V t[16];
        for (int i = 0; i < 8; ++i) {
            t[2 * i] = __builtin_shufflevector(r[i], r[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            t[2 * i + 1] = __builtin_shufflevector(r[i], r[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        for (int i = 0; i < 16; ++i) r[i] = t[i];
    }
}
inline void transpose(Vec<double> *r) {
    using V = Vec<double>;
    for (int round = 0; round < 3; ++round) {
        V t[8];
        for (int i = 0; i < 4; ++i) {
            t[2 * i] = __builtin_shufflevector(r[i], r[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
            t[2 * i + 1] = __builtin_shufflevector(r[i], r[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
        }
        for (int i = 0; i < 8; ++i) r[i] = t[i];
    }
}
#else
template <class V> inline void transpose(V *r) {
    constexpr int N = sizeof(V) / sizeof(r[0][0]);
    for (int i = 0; i < N; ++i)
        for (int j = 0; j < i; ++j) {
            const auto x = r[i][j];
            r[i][j] = r[j][i];
            r[j][i] = x;
        }
}
#endif

// 2 to the x. Range reduction to [-1/2, 1/2] and a polynomial: relative error below 1e-7 (float), 1e-15 (double).
// Below the smallest normal number the result is zero, so exp2(-inf) is exactly zero.
inline Vec<float> exp2(Vec<float> x) {
    using V = Vec<float>;
#if defined(__AVX512F__)
    // The processor rounds and scales. Not less than the smallest exponent: a NaN passes.
    const __mmask16 normal = _mm512_cmp_ps_mask((__m512)x, (__m512)splat<float>(-126.0f), _CMP_NLT_UQ);
    const V whole = (V)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const V f = x - whole;
#else
    using I = IVec<float>;
    const I tiny = x < -126.0f;
    V y = tiny ? splat<float>(-126.0f) : x;
    y = y > 128.0f ? splat<float>(128.0f) : y;
    const V magic = splat<float>(12582912.0f); // 1.5 * 2^23: adding it rounds to an integer in the low bits
    const V shifted = y + magic;
    const V f = y - (shifted - magic);
#endif
    V p = splat<float>(1.3266970386e-03f);
    p = p * f + 9.6754597455e-03f;
    p = p * f + 5.5507426160e-02f;
    p = p * f + 2.4022121754e-01f;
    p = p * f + 6.9314694916e-01f;
    p = p * f + 1.0000000710e+00f;
#if defined(__AVX512F__)
    return (V)_mm512_maskz_scalef_ps(normal, (__m512)p, (__m512)whole);
#else
    const I scaled = (I)p + (((I)shifted - (I)magic) << 23);
    return tiny ? V{} : (x != x ? x : (V)scaled);
#endif
}

inline Vec<double> exp2(Vec<double> x) {
    using V = Vec<double>;
    using I = IVec<double>;
    const I tiny = x < -1022.0;
    V y = tiny ? splat<double>(-1022.0) : x;
    y = y > 1024.0 ? splat<double>(1024.0) : y;
    const V magic = splat<double>(6755399441055744.0); // 1.5 * 2^52
    const V shifted = y + magic;
    const V t = (y - (shifted - magic)) * 0.69314718055994530942;
    V p = splat<double>(1.0 / 6227020800.0);
    const double inverse_factorial[] = {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                                        1.0 / 5040,      1.0 / 720,      1.0 / 120,     1.0 / 24,     1.0 / 6,
                                        0.5,             1.0,            1.0};
    for (double c : inverse_factorial) p = p * t + c;
    const I scaled = (I)p + (((I)shifted - (I)magic) << 52);
    const V r = (V)scaled;
    return tiny ? V{} : (x != x ? x : r);
}

// Half types as storage only.
inline float from_bfloat16(uint16_t h) {
    uint32_t bits = uint32_t(h) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}
inline uint16_t to_bfloat16(float f) {
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    if (f != f) return uint16_t((bits >> 16) | 0x40);
    return uint16_t((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

struct bfloat16 { uint16_t bits; };
using float16 = _Float16;

inline float load(float x) { return x; }
inline double load(double x) { return x; }
inline float load(bfloat16 x) { return from_bfloat16(x.bits); }
inline float load(float16 x) { return float(x); }
template <class S, class T> inline S store(T x) { return S(x); }
template <> inline bfloat16 store<bfloat16, float>(float x) { return {to_bfloat16(x)}; }

template <class S> struct ComputeOf { using T = float; };
template <> struct ComputeOf<double> { using T = double; };

// MurmurHash3's finaliser: attention dropout hashes (seed, head, query, key) with it, like the Python reference.
template <class U> inline U mix(U x) {
    x = x ^ (x >> 16);
    x = x * 0x85EBCA6Bu;
    x = x ^ (x >> 13);
    x = x * 0xC2B2AE35u;
    return x ^ (x >> 16);
}

} // namespace WINDEYE_ISA
} // namespace windeye
