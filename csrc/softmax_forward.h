// Forward pass: one lane tile of queries walks over the keys it sees with a running maximum.
//
// Logits are kept in units of log 2: the scale carries a factor log2(e), so that the exponential is a power of two.
#pragma once

#include "products.h"
#include "threads.h"
#include "tokens.h"

namespace windeye {
namespace WINDEYE_ISA {

template <class T> struct ForwardScratch {
    Buffer<Vec<T>> query, out, score;
    Buffer<T> key_rows, value_rows;
    Row rows[BLOCK];
    const T *key[BLOCK], *value[BLOCK];
    Picked<T> picked;
    Vec<T> top[MOST_VECTORS], total[MOST_VECTORS]; // running maximum, and sum of weights relative to it

    ForwardScratch(const Problem &p, int64_t vectors) {
        query.resize(p.head_dim * vectors);
        out.resize(p.value_dim * vectors);
        score.resize(BLOCK);
        key_rows.resize(int64_t(BLOCK) * p.head_dim);
        value_rows.resize(int64_t(BLOCK) * p.value_dim);
    }
};

// A tile of queries that has seen nothing yet.
template <class S, class T> void begin_tile(const Problem &p, ForwardScratch<T> &scratch, const Tile &tile, int32_t batch, int32_t head) {
    gather_lanes<S, T>(p.query, batch, head, tile, p.head_dim, T(p.scale) * Lanes<T>::log2e, scratch.query.data);
    for (int v = 0; v < tile.vectors; ++v) {
        scratch.top[v] = splat<T>(-std::numeric_limits<T>::infinity());
        scratch.total[v] = Vec<T>{};
    }
    for (int i = 0; i < p.value_dim * tile.vectors; ++i) scratch.out.data[i] = Vec<T>{};
}

// Takes in `count` rows; `bias(first lane of a vector, row)` is added to the logits where there is one.
template <class S, class T, class Bias>
void take_rows(const Problem &p, ForwardScratch<T> &scratch, const Tile &tile, const LaneDropout<T> &dropout, int32_t batch, int32_t head, int count, bool biased, Bias &&bias, bool careful) {
    using V = Vec<T>;
    constexpr int N = Lanes<T>::N;
    const T infinity = std::numeric_limits<T>::infinity();
    const int32_t kv_head = head / (p.heads / p.kv_heads), zero[AXES] = {0, 0, 0};
    const S *keys = token_at<S>(p.key, batch, kv_head, zero), *values = token_at<S>(p.value, batch, kv_head, zero);
    point<S, T>(p.key, keys, scratch.rows, &Row::offset_a, count, p.head_dim, tile.vectors, scratch.key_rows.data, scratch.key);
    point<S, T>(p.value, values, scratch.rows, &Row::offset_b, count, p.value_dim, tile.vectors, scratch.value_rows.data, scratch.value);
    Picked<T> &picked = scratch.picked;
    V *s = scratch.score.data;
    for (int v = 0; v < tile.vectors; ++v) {
        const int shift = v * N;
        picked.pick(scratch.rows, scratch.key, scratch.value, count, shift, tile.live >> shift & FULL<T>);
        if (picked.count == 0) continue;
        logits<T>(picked.near, picked.count, p.head_dim, scratch.query.data + v * p.head_dim, s);
        V highest = splat<T>(-infinity);
        for (int r = 0; r < picked.count; ++r) {
            V x = s[r];
            if (biased) x += bias(shift, picked.row(r)) * Lanes<T>::log2e;
            x = where<T>(picked.seen[r], x, splat<T>(-infinity));
            s[r] = x;
            highest = max<T>(highest, x);
        }
        V *out = scratch.out.data + v * p.value_dim;
        const V risen = max<T>(scratch.top[v], highest);
        const V reference = risen == -infinity ? V{} : risen;
        if (any<T>(risen > scratch.top[v])) {
            const V shrink = exp2(scratch.top[v] - reference);
            scratch.total[v] *= shrink;
            for (int d = 0; d < p.value_dim; ++d) out[d] *= shrink;
            scratch.top[v] = risen;
        }
        V sum = V{};
        for (int r = 0; r < picked.count; ++r) {
            V w = exp2(s[r] - reference);
            sum += w;
            if (dropout.active) w *= dropout.at(shift, picked.row(r), false);
            s[r] = w;
        }
        scratch.total[v] += sum;
        accumulate<T>(picked.far, picked.count, p.value_dim, s, picked.seen, out, careful);
    }
}

// Divides by the weights and writes the tile. False, and nothing written, where it must be walked again carefully.
template <class S, class T> bool end_tile(const Problem &p, ForwardScratch<T> &scratch, const Tile &tile, int32_t batch, int32_t head, bool careful) {
    using V = Vec<T>;
    constexpr int N = Lanes<T>::N;
    for (int v = 0; v < tile.vectors; ++v) {
        const V share = scratch.total[v] == T(0) ? V{} : T(1) / scratch.total[v];
        for (int d = 0; d < p.value_dim; ++d) scratch.out.data[v * p.value_dim + d] *= share;
    }
    if (!careful && !finite<T>(scratch.out.data, p.value_dim, tile)) return false;
    scatter_lanes<S, T>(p.out, batch, head, tile, p.value_dim, scratch.out.data);
    T *lse = static_cast<T *>(p.lse) + batch * p.tokens() * p.heads + head;
    for (int l = 0; l < tile.lanes; ++l) {
        if (!tile.has(l)) continue;
        const T sum = scratch.total[l / N][l % N], top = scratch.top[l / N][l % N];
        lse[tile.token[l] * p.heads] = sum == T(0) ? -std::numeric_limits<T>::infinity() : top * Lanes<T>::ln2 + std::log(sum);
    }
    return true;
}

template <class S, class T = typename ComputeOf<S>::T>
void forward_tile(const Problem &p, ForwardScratch<T> &scratch, int32_t batch, int32_t head, int64_t number, bool careful) {
    const Relation &relation = *p.relation;
    Tile tile;
    place(relation.forward, relation.grid, number, Lanes<T>::N, tile);
    LaneBias<T> bias;
    bias.set_table(p, head);
    bias.set_lanes(p, tile, false);
    LaneDropout<T> dropout;
    dropout.set(p, batch, head, tile, false);
    const uint8_t *hidden = p.key_padding ? p.key_padding + batch * p.tokens_kv() : nullptr;

    begin_tile<S>(p, scratch, tile, batch, head);
    visit_rows(relation, false, tile, p.key, p.value, hidden, p.bias ? bias.stride : nullptr, scratch.rows, [&](int count) {
        take_rows<S>(p, scratch, tile, dropout, batch, head, count, p.bias != nullptr,
                     [&](int shift, const Row &row) { return bias.at(shift, row, false); }, careful);
    });
    if (!end_tile<S>(p, scratch, tile, batch, head, careful)) forward_tile<S, T>(p, scratch, batch, head, number, true);
}

// Work in tiles below which another thread costs more than it brings: about two million operations.
inline int64_t grain_of(const Problem &p, const Side &side, int units) {
    int64_t rows = 0;
    for (size_t t = 0; t < p.relation->terms.size(); ++t) {
        int64_t product = 1;
        for (int a = 0; a < AXES; ++a) {
            int64_t sum = 0;
            for (const Cover &c : side.cover[t * AXES + a]) sum += c.count;
            product *= std::max<int64_t>(1, sum / std::max<int>(1, side.tiles(a)));
        }
        rows += product;
    }
    const int64_t per_tile = std::max<int64_t>(1, rows * side.lanes * p.head_dim * 2 * units);
    return std::max<int64_t>(1, 2000000 / per_tile);
}

template <class S> void forward_as(const Problem &p) {
    using T = typename ComputeOf<S>::T;
    const int64_t tiles = p.relation->forward.tiles();
    parallel(
        tiles * p.batch * p.heads, grain_of(p, p.relation->forward, 2), p.threads, [&] { return ForwardScratch<T>(p, p.relation->forward.lanes / Lanes<T>::N); },
        [&](ForwardScratch<T> &scratch, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t plane = i / tiles;
                forward_tile<S>(p, scratch, int32_t(plane / p.heads), int32_t(plane % p.heads), i % tiles, false);
            }
        });
}

} // namespace WINDEYE_ISA
} // namespace windeye
