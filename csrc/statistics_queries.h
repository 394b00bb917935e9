// Which queries see a vector of neighbouring keys, block by block: the runs of each query, looked at from the other side.
#pragma once

#include <vector>

#include "statistics_scores.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace statistics {

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

// Distances between query and key that count.
struct Lags {
    int64_t low, high;
    bool among(int64_t nearest, int64_t farthest) const { return low <= nearest && farthest <= high; }
};

// Queries of one head and of one block, packed, and which of them a vector of keys is seen by.
template <class S, class T> struct QueryBlock {
    Packed<S, T> queries;
    int32_t block = 0, token[BLOCK];
    int count = 0;
    int first = 0, last = 0; // after `look`: all that sees the keys is in [first, last)
    bool full = false;       // and every one of these sees every key
    uint64_t seen[BLOCK];    // lanes that each of these sees

    explicit QueryBlock(int dim) : queries(dim) {}

    // The queries of the block in [begin, end) that are wanted.
    template <class Wanted> void bring(const Problem &p, int32_t batch, int32_t head, int32_t number, int64_t begin, int64_t end, Wanted &&wanted) {
        block = number;
        count = 0;
        for (int64_t t = std::max<int64_t>(begin, int64_t(block) * BLOCK); t < std::min<int64_t>(end, int64_t(block + 1) * BLOCK); ++t)
            if (wanted(t)) token[count++] = int32_t(t);
        queries.bring(p.query, batch, head, p.head_dim, 0, count, [&](int i) { return int64_t(token[i]); });
    }

    // False where none of them sees one of the keys [key, key_end) at a distance that counts.
    bool look(const Problem &p, const Outline &outline, int32_t batch, int32_t key, int32_t key_end, Lags lags) {
        const int32_t run_batch = p.run_batch == 1 ? 0 : batch;
        const auto distance = [&](int i, int32_t k) { return int64_t(token[i]) + p.offset - k; };
        first = 0, last = count;
        while (first < last && distance(first, key) < lags.low) ++first;
        while (first < last && distance(last - 1, key_end - 1) > lags.high) --last;
        if (first == last || !outline.touches(run_batch, block, key, key_end)) return false;
        full = lags.among(distance(first, key_end - 1), distance(last - 1, key)) && outline.covers(run_batch, block, key, key_end);
        if (full) {
            std::fill(seen + first, seen + last, FULL<T>);
            return true;
        }
        uint64_t any = 0;
        for (int i = first; i < last; ++i) any |= seen[i] = lanes_seen(p, batch, token[i], key, lags);
        return any != 0;
    }

  private:
    static uint64_t lanes_seen(const Problem &p, int32_t batch, int32_t t, int32_t key, Lags lags) {
        constexpr int N = Lanes<T>::N;
        const int64_t place = int64_t(t) + p.offset;
        const int64_t nearest = std::max<int64_t>(key, place - lags.high), beyond = std::min<int64_t>(key + N, place - lags.low + 1);
        const int32_t *start = p.start + p.run_row(batch) + t, *stop = p.stop + p.run_row(batch) + t;
        uint64_t lanes = 0;
        for (int32_t r = 0; r < p.runs; ++r, start += p.queries, stop += p.queries) {
            const int64_t begin = std::max<int64_t>(*start, nearest), end = std::min<int64_t>(*stop, beyond);
            if (begin < end) lanes |= bits_between(int32_t(begin - key), int32_t(end - key));
        }
        return lanes;
    }
};

// Biases of a tile of keys, in units of log 2.
template <class T> void gather_bias(const Problem &p, int32_t batch, int32_t head, const Tile &tile, Vec<T> *bias) {
    constexpr int N = Lanes<T>::N;
    for (int v = 0; v < tile.vectors; ++v) bias[v] = Vec<T>{};
    if (!p.bias) return;
    const T *from = static_cast<const T *>(p.bias) + batch * p.bias_batch + head * p.bias_head;
    for (int l = 0; l < tile.lanes; ++l)
        if (tile.has(l)) bias[l / N][l % N] = from[tile.token[l]] * Lanes<T>::log2e;
}

} // namespace statistics
} // namespace WINDEYE_ISA
} // namespace windeye
