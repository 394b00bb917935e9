// Sums over the queries of each key, from the normalisers that an earlier pass has left. Lanes are keys; one writer each.
#pragma once

#include "statistics_queries.h"
#include "threads.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace statistics {

using windeye::statistics::Columns;

template <class S, class T> struct ColumnScratch {
    QueryBlock<S, T> rows;
    Buffer<Vec<T>> key, score;
    Vec<T> sums[MOST_VECTORS], bias[MOST_VECTORS];
    Tile tile;
    T normaliser[BLOCK], weight[BLOCK]; // of the packed queries; log-sum-exp in units of log 2

    explicit ColumnScratch(const Problem &p) : rows(p.head_dim) {
        key.resize(int64_t(MOST_VECTORS) * p.head_dim);
        score.resize(BLOCK);
    }
};

// One vector of keys takes in the packed queries that see it.
template <class S, class T> void take_queries(const Problem &p, const Logit<T> &logit, ColumnScratch<S, T> &scratch, int v) {
    const QueryBlock<S, T> &rows = scratch.rows;
    const int first = rows.first, last = rows.last;
    Vec<T> *s = scratch.score.data;
    logits<T>(rows.queries.row + first, last - first, p.head_dim, scratch.key.data + int64_t(v) * p.head_dim, s + first);
    logit.finish(s + first, last - first);
    Vec<T> sum{};
    for (int r = first; r < last; ++r) {
        Vec<T> x = s[r] + scratch.bias[v] - scratch.normaliser[r];
        if (!rows.full) x = where<T>(rows.seen[r], x, splat<T>(HIDDEN<T>));
        sum += scratch.weight[r] * exp2(x);
    }
    scratch.sums[v] += sum;
}

template <class S, class T>
void walk_columns(const Problem &p, const Columns &columns, const Outline &outline, const Logit<T> &logit, ColumnScratch<S, T> &scratch,
                  int32_t batch, int32_t head, int32_t key, int32_t key_end) {
    constexpr int N = Lanes<T>::N;
    const Lags lags{columns.low, columns.high};
    Tile &tile = scratch.tile;
    neighbours<T>(key, key_end, tile);
    gather_lanes<S, T>(p.key, batch, head / (p.heads / p.kv_heads), tile, p.head_dim, logit.factor, scratch.key.data);
    gather_bias<T>(p, batch, head, tile, scratch.bias);
    std::fill_n(scratch.sums, tile.vectors, Vec<T>{});
    const T *lse = static_cast<const T *>(p.lse) + int64_t(batch) * p.queries * p.heads + head;
    const T *weight = static_cast<const T *>(columns.weight);
    if (weight) weight += batch * columns.weight_batch;
    const int64_t begin = std::max<int64_t>(0, key + lags.low - p.offset), end = std::min<int64_t>(p.queries, key_end + lags.high - p.offset);
    for (int32_t block = int32_t(begin / BLOCK); int64_t(block) * BLOCK < end; ++block) {
        if (!outline.touches(p.run_batch == 1 ? 0 : batch, block, key, key_end)) continue;
        QueryBlock<S, T> &rows = scratch.rows;
        rows.bring(p, batch, head, block, begin, end, [&](int64_t t) { return !weight || weight[t] != T(0); });
        for (int i = 0; i < rows.count; ++i) {
            scratch.normaliser[i] = lse[int64_t(rows.token[i]) * p.heads] * Lanes<T>::log2e;
            scratch.weight[i] = weight ? weight[rows.token[i]] : T(1);
        }
        for (int v = 0; v < tile.vectors; ++v) {
            const int32_t at = key + v * N;
            if (rows.look(p, outline, batch, at, std::min(at + N, key_end), lags)) take_queries(p, logit, scratch, v);
        }
    }
    T *sums = static_cast<T *>(columns.sums) + int64_t(batch) * p.keys * p.heads + head;
    for (int l = 0; l < tile.lanes; ++l)
        if (tile.has(l)) sums[tile.token[l] * p.heads] = scratch.sums[l / N][l % N];
}

template <class S> void columns_as(const Problem &p, const Columns &columns) {
    using T = typename ComputeOf<S>::T;
    const Outline outline(p);
    const Logit<T> logit(p);
    constexpr int32_t width = MOST_VECTORS * Lanes<T>::N;
    const int32_t tiles = (p.keys + width - 1) / width;
    const int64_t rows = std::min<int64_t>(p.queries, columns.high - columns.low + width), work = rows * width * p.head_dim * 2;
    parallel(
        int64_t(p.batch) * p.heads * tiles, std::max<int64_t>(1, 2000000 / std::max<int64_t>(1, work)), p.threads,
        [&] { return ColumnScratch<S, T>(p); },
        [&](ColumnScratch<S, T> &scratch, int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) {
                const int64_t plane = i / tiles;
                const int32_t key = int32_t(i % tiles) * width;
                walk_columns(p, columns, outline, logit, scratch, int32_t(plane / p.heads), int32_t(plane % p.heads), key,
                             std::min(key + width, p.keys));
            }
        });
}

} // namespace statistics
} // namespace WINDEYE_ISA
} // namespace windeye
