// Key lifetimes: key j is seen by the positions j <= i < expiry[j], so what a tile of queries sees is a list of live keys.
//
// A sweep goes over the queries of one head and keeps that list: keys join at their own position and leave when they
// expire. Queries are cut into a fixed number of runs; each finds its first list by looking at all keys before it, so a
// head costs O(n) for lists and O(n (w + lanes) d) for work, with w the mean number of live keys.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "threads.h"
#include "tokens.h"

namespace windeye {
namespace WINDEYE_ISA {

constexpr int64_t QUERY_RUNS = 16; // per head; fixed, so that nothing depends on the number of threads

// What one sweep looks at: the keys [first, last) of one head.
struct LiveKeys {
    const int32_t *expiry = nullptr;
    const uint8_t *hidden = nullptr; // of this batch entry, or null
    int64_t first = 0, last = 0;
    std::vector<int32_t> keys; // ascending

    // The keys that the position before `position` leaves behind.
    void start(int64_t position) {
        keys.clear();
        next = first;
        advance(position - 1, position);
    }

    // The keys that some position of [begin, end) sees.
    void advance(int64_t begin, int64_t end) {
        size_t kept = 0;
        for (const int32_t key : keys)
            if (expiry[key] > begin) keys[kept++] = key;
        keys.resize(kept);
        for (const int64_t stop = std::min(last, end); next < stop; ++next)
            if (expiry[next] > std::max(begin, next) && !(hidden && hidden[next])) keys.push_back(int32_t(next));
    }

    // Lanes p, at positions begin + p, that see a key.
    uint64_t lanes(int32_t key, int64_t begin, int count) const {
        const int64_t from = std::max<int64_t>(0, key - begin), to = std::min<int64_t>(count, expiry[key] - begin);
        if (to <= from) return 0;
        return (to - from == 64 ? ~uint64_t(0) : (uint64_t(1) << (to - from)) - 1) << from;
    }

  private:
    int64_t next = 0;
};

inline LiveKeys live_keys(const Problem &p, int32_t batch, int32_t head) {
    const Lifetimes &l = p.lifetimes;
    const int64_t keys = p.tokens_kv(), row = (l.batch == 1 ? 0 : batch) * l.heads + head / (p.heads / l.heads);
    LiveKeys live;
    live.expiry = l.expiry + row * keys;
    live.hidden = p.key_padding ? p.key_padding + batch * keys : nullptr;
    live.last = keys;
    return live;
}

// Row of the bias table, and of its gradient, that a query head reads.
inline int64_t bias_row(const Problem &p, int32_t batch, int32_t head) {
    return (int64_t(batch) * p.lifetimes.bias_heads + head / (p.heads / p.lifetimes.bias_heads)) * p.tokens_kv();
}

// Vectors per tile: more share each row that is read, but see more rows that their neighbours need.
template <class T> int lifetime_vectors(const Problem &p) {
    constexpr int N = Lanes<T>::N;
    const Lifetimes &l = p.lifetimes;
    const int64_t keys = p.tokens_kv(), rows = int64_t(l.batch) * l.heads, offset = keys - p.tokens();
    double pairs = 0;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t k = 0; k < keys; ++k)
            pairs += double(std::max<int64_t>(0, std::min<int64_t>(keys, l.expiry[r * keys + k]) - std::max(k, offset)));
    const double live = pairs / double(std::max<int64_t>(1, rows * p.tokens()));
    constexpr double per_row = 0.35; // as in the planner of interval tables: masks, pointers, loads
    int best = 1;
    double cost = 0;
    for (const int vectors : {1, 2, 4}) {
        if (vectors > 1 && p.tokens() <= vectors / 2 * N) break;
        const double now = (live + vectors * N / 2) * (vectors + per_row) / vectors;
        if (vectors == 1 || now < cost) {
            best = vectors;
            cost = now;
        }
    }
    return best;
}

// A tile of consecutive queries of a sequence.
inline void place_queries(int64_t begin, int count, int width, Tile &tile) {
    tile.vectors = (count + width - 1) / width;
    tile.lanes = tile.vectors * width;
    tile.filled = tile.live = count == 64 ? ~uint64_t(0) : (uint64_t(1) << count) - 1;
    for (int l = 0; l < count; ++l) {
        tile.coord[0][l] = tile.coord[1][l] = 0;
        tile.coord[2][l] = int32_t(begin + l);
        tile.token[l] = begin + l;
    }
}

// Calls flush(count) for blocks of the keys that a tile at `begin` sees.
template <class Flush>
void visit_live(const LiveKeys &live, int64_t begin, const Tile &tile, const Tensor &a, const Tensor &b, Row *rows, Flush &&flush) {
    int filled = 0;
    for (const int32_t key : live.keys) {
        const uint64_t mask = live.lanes(key, begin, MOST_LANES) & tile.filled;
        if (!mask) continue;
        rows[filled++] = {key * a.axis[2], key * b.axis[2], mask, key, 0};
        if (filled == BLOCK) {
            flush(filled);
            filled = 0;
        }
    }
    if (filled) flush(filled);
}

// Walks over the tiles of a stretch of queries: step(tile, begin position).
template <class T, class Step> void sweep(const Problem &p, LiveKeys &live, int64_t query, int64_t end, int vectors, Step &&step) {
    const int lanes = vectors * Lanes<T>::N;
    const int64_t offset = p.tokens_kv() - p.tokens();
    live.start(query + offset);
    Tile tile;
    for (; query < end; query += lanes) {
        const int64_t begin = query + offset;
        const int64_t count = std::min<int64_t>(lanes, end - query);
        place_queries(query, int(count), Lanes<T>::N, tile);
        live.advance(begin, begin + count);
        step(tile, begin);
    }
}

// Calls body(scratch, batch, head, first query, last query) for every run of every head.
template <class MakeScratch, class Body> void parallel_runs(const Problem &p, int lanes, MakeScratch make, Body body) {
    const int64_t tiles = (p.tokens() + lanes - 1) / lanes, runs = std::min(QUERY_RUNS, tiles);
    const int64_t work = std::max<int64_t>(1, p.tokens() / std::max<int64_t>(1, runs) * p.head_dim * 64);
    parallel(
        runs * p.batch * p.heads, std::max<int64_t>(1, 2000000 / work), p.threads, make,
        [&](auto &scratch, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t plane = i / runs, run = i % runs;
                body(scratch, int32_t(plane / p.heads), int32_t(plane % p.heads), tiles * run / runs * lanes,
                     std::min(p.tokens(), tiles * (run + 1) / runs * lanes));
            }
        });
}

} // namespace WINDEYE_ISA
} // namespace windeye
