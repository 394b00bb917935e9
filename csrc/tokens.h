// Moving tokens between memory and lanes: rows are read in place when they can be, else unpacked; lanes are transposed.
#pragma once

#include <cmath>
#include <type_traits>
#include <vector>

#include "rows.h"

namespace windeye {
namespace WINDEYE_ISA {

template <class S> inline const S *token_at(const Tensor &x, int32_t batch, int32_t head, const int32_t *coord) {
    return reinterpret_cast<const S *>(x.data) + batch * x.batch + head * x.head + coord[0] * x.axis[0] +
           coord[1] * x.axis[1] + coord[2] * x.axis[2];
}

template <class T> inline void unaligned_store(T *to, const Vec<T> &x) { std::memcpy(to, &x, sizeof(x)); }
template <class T> inline Vec<T> unaligned_load(const T *from) {
    Vec<T> x;
    std::memcpy(&x, from, sizeof(x));
    return x;
}

template <class S, class T> inline void unpack(const S *from, int64_t stride, int dim, T *to) {
    int d = 0;
    if (stride == 1) {
        if constexpr (std::is_same_v<S, T>)
            for (; d + Lanes<T>::N <= dim; d += Lanes<T>::N) unaligned_store<T>(to + d, unaligned_load<T>(from + d));
#if defined(__AVX512F__)
        if constexpr (std::is_same_v<S, bfloat16>)
            for (; d + 16 <= dim; d += 16)
                _mm512_storeu_ps(to + d, (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(from + d))), 16));
        if constexpr (std::is_same_v<S, float16>)
            for (; d + 16 <= dim; d += 16)
                _mm512_storeu_ps(to + d, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from + d))));
#elif defined(__F16C__)
        if constexpr (std::is_same_v<S, float16>)
            for (; d + 8 <= dim; d += 8) _mm256_storeu_ps(to + d, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + d))));
#endif
        for (; d < dim; ++d) to[d] = load(from[d]);
    } else {
        for (; d < dim; ++d) to[d] = load(from[d * stride]);
    }
}

// Pointers to `count` rows as compute type. Rows that several vectors use are packed: at the stride of a token of many
// heads they would fall into a few sets of the first cache and be fetched again by every vector.
template <class S, class T>
inline void point(const Tensor &x, const S *head, const Row *rows, int64_t Row::*offset, int count, int dim, int vectors, T *packed, const T **pointers) {
    if constexpr (std::is_same_v<S, T>)
        if (x.dim == 1 && vectors == 1) {
            for (int r = 0; r < count; ++r) pointers[r] = head + rows[r].*offset;
            return;
        }
    // All at once, so that rows that are far away come together.
    if (x.dim == 1)
        for (int r = 0; r < count; ++r)
            for (int d = 0; d < dim; d += 64 / int(sizeof(S))) __builtin_prefetch(head + rows[r].*offset + d, 0, 2);
    for (int r = 0; r < count; ++r) {
        unpack(head + rows[r].*offset, x.dim, dim, packed + int64_t(r) * dim);
        pointers[r] = packed + int64_t(r) * dim;
    }
}

// lanes[vector][d] = factor * dimension d of the vector's tokens; lanes without a token are zero.
template <class S, class T>
void gather_lanes(const Tensor &x, int32_t batch, int32_t head, const Tile &tile, int dim, T factor, Vec<T> *lanes) {
    constexpr int N = Lanes<T>::N;
    alignas(64) T part[N];
    for (int v = 0; v < tile.vectors; ++v) {
        const S *from[N];
        for (int p = 0; p < N; ++p) {
            const int lane = v * N + p;
            from[p] = nullptr;
            if (!tile.has(lane)) continue;
            const int32_t coord[AXES] = {tile.coord[0][lane], tile.coord[1][lane], tile.coord[2][lane]};
            from[p] = token_at<S>(x, batch, head, coord);
        }
        for (int d = 0; d < dim; d += N) {
            const int width = dim - d < N ? dim - d : N;
            Vec<T> block[N];
            for (int p = 0; p < N; ++p) {
                block[p] = Vec<T>{};
                if (!from[p]) continue;
                if (width == N) {
                    unpack(from[p] + d * x.dim, x.dim, N, part);
                    block[p] = unaligned_load<T>(part) * factor;
                } else {
                    for (int i = 0; i < width; ++i) block[p][i] = factor * load(from[p][(d + i) * x.dim]);
                }
            }
            transpose(block);
            for (int i = 0; i < width; ++i) lanes[v * dim + d + i] = block[i];
        }
    }
}

// The reverse; tokens that take no part get zero.
template <class S, class T>
void scatter_lanes(const Tensor &x, int32_t batch, int32_t head, const Tile &tile, int dim, const Vec<T> *lanes) {
    constexpr int N = Lanes<T>::N;
    for (int v = 0; v < tile.vectors; ++v)
        for (int d = 0; d < dim; d += N) {
            const int width = dim - d < N ? dim - d : N;
            Vec<T> block[N];
            for (int i = 0; i < N; ++i) block[i] = i < width ? lanes[v * dim + d + i] : Vec<T>{};
            transpose(block);
            for (int p = 0; p < N; ++p) {
                const int lane = v * N + p;
                if (!tile.has(lane)) continue;
                const int32_t coord[AXES] = {tile.coord[0][lane], tile.coord[1][lane], tile.coord[2][lane]};
                S *to = const_cast<S *>(token_at<S>(x, batch, head, coord)) + d * x.dim;
                const Vec<T> row = tile.live >> lane & 1 ? block[p] : Vec<T>{};
                if constexpr (std::is_same_v<S, T>)
                    if (x.dim == 1 && width == N) {
                        unaligned_store<T>(to, row);
                        continue;
                    }
                for (int i = 0; i < width; ++i) to[i * x.dim] = store<S>(row[i]);
            }
        }
}

template <class T> bool finite(const Vec<T> *lanes, int dim, const Tile &tile) {
    // x * 0 is 0 for every finite x and NaN for the rest.
    for (int v = 0; v < tile.vectors; ++v) {
        Vec<T> sum{};
        for (int d = 0; d < dim; ++d) sum += lanes[v * dim + d] * T(0);
        if (any<T>((sum != sum) & expand<T>(tile.live >> (v * Lanes<T>::N)))) return false;
    }
    return true;
}

// Memory of one thread; its size depends on the head dims and never on the number of tokens.
template <class T> struct Buffer {
    std::vector<char> bytes;
    T *data = nullptr;
    void resize(int64_t count) {
        bytes.resize(size_t(count) * sizeof(T) + 64);
        const auto address = reinterpret_cast<uintptr_t>(bytes.data());
        data = reinterpret_cast<T *>((address + 63) / 64 * 64);
    }
};

// Bias of the pair (lane, row): table[lane_bias[lane] + row.bias], clamped because hidden pairs may lie outside.
template <class T> struct LaneBias {
    const T *table = nullptr;
    int32_t entries = 1;
    int32_t stride[AXES] = {0, 0, 0};
    alignas(64) int32_t lane[MOST_LANES];

    void set_table(const Problem &p, int32_t head) {
        if (!p.bias) return;
        entries = int32_t(p.bias_entries());
        table = static_cast<const T *>(p.bias) + int64_t(head) * entries;
        stride[2] = 1;
        stride[1] = p.bias_size[2];
        stride[0] = p.bias_size[1] * p.bias_size[2];
    }

    // Offsets count from query to key, so keys add and queries subtract; rows are signed by `transposed` in `index`.
    void set_lanes(const Problem &p, const Tile &tile, bool transposed) {
        if (!p.bias) return;
        const int32_t *step = p.relation->bias_step;
        for (int l = 0; l < MOST_LANES; ++l) {
            int32_t index = 0;
            for (int a = 0; a < AXES && tile.has(l); ++a) {
                const int32_t place = tile.coord[a][l] / step[a];
                index += stride[a] * (p.bias_size[a] / 2 + (transposed ? place : -place));
            }
            lane[l] = index;
        }
    }

    int32_t index(int l, const Row &row, bool transposed) const {
        const int32_t i = lane[l] + (transposed ? -row.bias : row.bias);
        return i < 0 ? 0 : i >= entries ? entries - 1 : i;
    }

    Vec<T> at(int first, const Row &row, bool transposed) const {
        Vec<T> bias;
        for (int l = 0; l < Lanes<T>::N; ++l) bias[l] = table[index(first + l, row, transposed)];
        return bias;
    }
};

// Which pairs attention dropout keeps, as a factor per lane.
template <class T> struct LaneDropout {
    bool active = false;
    uint32_t threshold = 0, head = 0;
    T factor = 1;
    alignas(64) uint32_t lane[MOST_LANES]; // forward: hash of the lane's query; transposed: the lane's key, spread

    void set(const Problem &p, int32_t batch, int32_t h, const Tile &tile, bool transposed) {
        active = p.dropout > 0;
        if (!active) return;
        threshold = p.dropout_threshold;
        factor = T(1 / (1 - p.dropout));
        head = mix<uint32_t>(p.seed + uint32_t(batch * p.heads + h) * 0x9E3779B9u);
        for (int l = 0; l < MOST_LANES; ++l) {
            const uint32_t token = tile.has(l) ? uint32_t(tile.token[l]) : 0;
            lane[l] = transposed ? token * 0x85EBCA6Bu : mix<uint32_t>(head + token * 0x9E3779B9u);
        }
    }

    Vec<T> at(int first, const Row &row, bool transposed) const {
        const uint32_t mine = transposed ? mix<uint32_t>(head + uint32_t(row.token) * 0x9E3779B9u) : uint32_t(row.token) * 0x85EBCA6Bu;
        Vec<T> keep;
        for (int l = 0; l < Lanes<T>::N; ++l) keep[l] = mix<uint32_t>(lane[first + l] ^ mine) >= threshold ? factor : T(0);
        return keep;
    }
};

} // namespace WINDEYE_ISA
} // namespace windeye
