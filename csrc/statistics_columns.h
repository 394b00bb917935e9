// Sums over the queries of each key, from the normalisers that an earlier pass has left. Lanes are keys; one writer each.
#pragma once

#include <vector>

#include "statistics_sight.h"
#include "threads.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace statistics {

using windeye::statistics::Columns;

// Runs of whole blocks of queries: enough to leave most blocks out, or to take them without masks.
class Outline {
  public:
    explicit Outline(const Problem &p) : blocks((p.queries + BLOCK - 1) / BLOCK), runs(p.runs) {
        reach.resize(size_t(p.run_batch) * blocks);
        common.resize(reach.size() * runs);
        for (int32_t b = 0; b < p.run_batch; ++b)
            for (int32_t r = 0; r < runs; ++r)
                for (int32_t block = 0; block < blocks; ++block) {
                    Range &touched = reach[size_t(b) * blocks + block], whole{0, std::numeric_limits<int32_t>::max()};
                    for (int32_t t = block * BLOCK; t < std::min((block + 1) * BLOCK, p.queries); ++t) {
                        const int64_t at = p.run_row(b) + int64_t(r) * p.queries + t;
                        const int32_t start = p.start[at], stop = p.stop[at];
                        whole = {std::max(whole.begin, start), std::min(whole.end, stop)};
                        if (start < stop) touched = {std::min(touched.begin, start), std::max(touched.end, stop)};
                    }
                    common[(size_t(b) * blocks + block) * runs + r] = whole;
                }
    }

    // Whether a query of the block might see one of the keys.
    bool touches(int32_t b, int32_t block, int32_t key, int32_t key_end) const {
        const Range &touched = reach[size_t(b) * blocks + block];
        return touched.begin < key_end && key < touched.end;
    }

    // Whether each query of the block sees all of the keys; it may say no where the keys lie in several runs.
    bool covers(int32_t b, int32_t block, int32_t key, int32_t key_end) const {
        const Range *whole = common.data() + (size_t(b) * blocks + block) * runs;
        for (int32_t r = 0; r < runs; ++r)
            if (whole[r].begin <= key && key_end <= whole[r].end) return true;
        return false;
    }

  private:
    struct Range {
        int32_t begin = std::numeric_limits<int32_t>::max(), end = 0;
    };
    int32_t blocks, runs;
    std::vector<Range> reach;  // [batch, block]: that any query sees
    std::vector<Range> common; // [batch, block, run]: that every query sees
};

template <class S, class T> struct ColumnScratch {
    Packed<S, T> queries;
    Buffer<Vec<T>> key, score;
    Vec<T> sums[MOST_VECTORS], bias[MOST_VECTORS];
    Tile tile;
    int32_t token[BLOCK];                // of the packed queries
    T normaliser[BLOCK], weight[BLOCK];  // theirs; log-sum-exp in units of log 2
    uint64_t seen[BLOCK];

    explicit ColumnScratch(const Problem &p) : queries(p.head_dim) {
        key.resize(int64_t(MOST_VECTORS) * p.head_dim);
        score.resize(BLOCK);
    }
};

// Lanes [key, key + N) that query t sees at a distance of `low` to `high`.
template <class T> uint64_t seen_lanes(const Problem &p, const Columns &columns, int32_t b, int32_t t, int32_t key) {
    constexpr int N = Lanes<T>::N;
    const int64_t place = int64_t(t) + p.offset;
    const int64_t nearest = std::max<int64_t>(key, place - columns.high), beyond = std::min<int64_t>(key + N, place - columns.low + 1);
    const int32_t *start = p.start + p.run_row(b) + t, *stop = p.stop + p.run_row(b) + t;
    uint64_t lanes = 0;
    for (int32_t r = 0; r < p.runs; ++r, start += p.queries, stop += p.queries) {
        const int64_t begin = std::max<int64_t>(*start, nearest), end = std::min<int64_t>(*stop, beyond);
        if (begin < end) lanes |= bits_between(int32_t(begin - key), int32_t(end - key));
    }
    return lanes;
}

// One vector of keys takes in the packed queries that stand near enough.
template <class S, class T>
void take_queries(const Problem &p, const Columns &columns, const Outline &outline, const Logit<T> &logit, ColumnScratch<S, T> &scratch, int32_t batch, int32_t block, int count, int v) {
    using V = Vec<T>;
    constexpr int N = Lanes<T>::N;
    const int32_t key = scratch.tile.coord[2][v * N], key_end = std::min(key + N, p.keys);
    const int32_t *tokens = scratch.token;
    int first = 0, last = count;
    while (first < last && int64_t(tokens[first]) + p.offset - key < columns.low) ++first;
    while (first < last && int64_t(tokens[last - 1]) + p.offset - (key_end - 1) > columns.high) --last;
    if (first == last || !outline.touches(p.run_batch == 1 ? 0 : batch, block, key, key_end)) return;
    const bool near = int64_t(tokens[first]) + p.offset - (key_end - 1) >= columns.low && int64_t(tokens[last - 1]) + p.offset - key <= columns.high;
    const bool full = near && outline.covers(p.run_batch == 1 ? 0 : batch, block, key, key_end);
    if (!full) {
        uint64_t any = 0;
        for (int r = first; r < last; ++r) any |= scratch.seen[r] = seen_lanes<T>(p, columns, batch, tokens[r], key);
        if (!any) return;
    }
    V *s = scratch.score.data;
    logits<T>(scratch.queries.row + first, last - first, p.head_dim, scratch.key.data + int64_t(v) * p.head_dim, s + first);
    logit.finish(s + first, last - first);
    V sum{};
    for (int r = first; r < last; ++r) {
        V x = s[r] + scratch.bias[v] - scratch.normaliser[r];
        if (!full) x = where<T>(scratch.seen[r], x, splat<T>(HIDDEN<T>));
        sum += scratch.weight[r] * exp2(x);
    }
    scratch.sums[v] += sum;
}

template <class S, class T>
void walk_columns(const Problem &p, const Columns &columns, const Outline &outline, const Logit<T> &logit, ColumnScratch<S, T> &scratch, int32_t batch, int32_t head, int32_t key, int32_t key_end) {
    constexpr int N = Lanes<T>::N;
    const int32_t run_batch = p.run_batch == 1 ? 0 : batch;
    neighbours<T>(key, key_end, scratch.tile);
    gather_lanes<S, T>(p.key, batch, head / (p.heads / p.kv_heads), scratch.tile, p.head_dim, logit.factor, scratch.key.data);
    for (int v = 0; v < scratch.tile.vectors; ++v) {
        scratch.sums[v] = scratch.bias[v] = Vec<T>{};
        if (!p.bias) continue;
        const T *bias = static_cast<const T *>(p.bias) + batch * p.bias_batch + head * p.bias_head;
        for (int l = 0; l < N && key + v * N + l < key_end; ++l) scratch.bias[v][l] = bias[key + v * N + l] * Lanes<T>::log2e;
    }
    const T *lse = static_cast<const T *>(p.lse) + int64_t(batch) * p.queries * p.heads + head;
    const T *weight = static_cast<const T *>(columns.weight);
    if (weight) weight += batch * columns.weight_batch;
    const int64_t begin = std::max<int64_t>(0, key + columns.low - p.offset);
    const int64_t end = std::min<int64_t>(p.queries, key_end + columns.high - p.offset);
    for (int64_t block = begin / BLOCK; block * BLOCK < end; ++block) {
        if (!outline.touches(run_batch, int32_t(block), key, key_end)) continue;
        int count = 0;
        for (int64_t t = std::max(begin, block * BLOCK); t < std::min(end, (block + 1) * BLOCK); ++t) {
            if (weight && weight[t] == T(0)) continue;
            scratch.token[count] = int32_t(t);
            scratch.weight[count] = weight ? weight[t] : T(1);
            scratch.normaliser[count++] = lse[t * p.heads] * Lanes<T>::log2e;
        }
        scratch.queries.bring(p.query, batch, head, p.head_dim, 0, count, [&](int i) { return int64_t(scratch.token[i]); });
        for (int v = 0; v < scratch.tile.vectors; ++v) take_queries(p, columns, outline, logit, scratch, batch, int32_t(block), count, v);
    }
    T *sums = static_cast<T *>(columns.sums) + int64_t(batch) * p.keys * p.heads + head;
    for (int32_t k = key; k < key_end; ++k) sums[int64_t(k) * p.heads] = scratch.sums[(k - key) / N][(k - key) % N];
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
                walk_columns(p, columns, outline, logit, scratch, int32_t(plane / p.heads), int32_t(plane % p.heads), key, std::min(key + width, p.keys));
            }
        });
}

} // namespace statistics
} // namespace WINDEYE_ISA
} // namespace windeye
