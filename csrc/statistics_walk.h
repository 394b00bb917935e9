// How the queries are cut into tiles, and how a tile walks over the keys that it sees.
#pragma once

#include "statistics_sight.h"
#include "threads.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace statistics {

// Vectors that share the keys of a tile: the query heads of a key head, and neighbouring queries where those are few.
constexpr int SHARED_VECTORS = 8, WORTH_SHARING = 4;

struct TileShape {
    int heads, query_vectors;

    explicit TileShape(const Problem &p) {
        const int group = p.heads / p.kv_heads, parts = (group + SHARED_VECTORS - 1) / SHARED_VECTORS;
        heads = (group + parts - 1) / parts;
        query_vectors = std::max(1, WORTH_SHARING / heads);
    }
    int vectors() const { return heads * query_vectors; }
};

// Where a tile is: queries [query, query_end) of the heads [head, head_end), which share the keys of one key head.
struct TilePlace {
    int32_t batch, kv_head, head, head_end, query, query_end;
    int heads() const { return head_end - head; }
    // Of an array [batch, queries, heads].
    int64_t row(const Problem &p, int32_t t, int h) const { return (int64_t(batch) * p.queries + t) * p.heads + head + h; }
};

// A tile's queries, its vectors, and what each vector of queries sees.
template <class T> struct TileSight {
    Tile tile;
    Sight<T> sight[MOST_VECTORS];

    void begin(const Problem &p, const TilePlace &at) {
        constexpr int N = Lanes<T>::N;
        neighbours<T>(at.query, at.query_end, tile);
        for (int q = 0; q < tile.vectors; ++q) sight[q].begin(p, at.batch, at.query + q * N, std::min(N, at.query_end - at.query - q * N));
    }

    // Calls take(block, first, last) for each block of keys, of which [first, last) are seen.
    template <class Take> void walk(const Problem &p, Take &&take) {
        for (int32_t key = 0;;) {
            int32_t next = Sight<T>::NONE;
            for (int q = 0; q < tile.vectors; ++q) next = std::min(next, sight[q].next(key));
            if (next >= p.keys) return;
            const int32_t block = next / BLOCK * BLOCK;
            int first = BLOCK, last = 0;
            for (int q = 0; q < tile.vectors; ++q) {
                sight[q].look(block);
                if (sight[q].first == sight[q].last) continue;
                first = std::min(first, sight[q].first);
                last = std::max(last, sight[q].last);
            }
            take(block, first, last);
            key = block + BLOCK;
        }
    }
};

// Calls body(scratch, place) for every tile.
template <class T, class MakeScratch, class Body> void each_tile(const Problem &p, const TileShape &shape, MakeScratch &&make_scratch, Body &&body) {
    const int32_t width = shape.query_vectors * Lanes<T>::N, tiles = (p.queries + width - 1) / width;
    const int32_t group = p.heads / p.kv_heads, parts = (group + shape.heads - 1) / shape.heads;
    const int64_t work = int64_t(width) * shape.heads * p.keys * p.head_dim;
    parallel(
        int64_t(p.batch) * p.kv_heads * parts * tiles, std::max<int64_t>(1, 2000000 / std::max<int64_t>(1, work)), p.threads, make_scratch,
        [&](auto &scratch, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                // Late queries first: where they see more than early ones, threads end at the same time.
                const int32_t tile = tiles - 1 - int32_t(i % tiles), part = int32_t(i / tiles % parts);
                const int64_t plane = i / tiles / parts;
                TilePlace at;
                at.batch = int32_t(plane / p.kv_heads);
                at.kv_head = int32_t(plane % p.kv_heads);
                at.head = at.kv_head * group + part * shape.heads;
                at.head_end = std::min(at.head + shape.heads, (at.kv_head + 1) * group);
                at.query = tile * width;
                at.query_end = std::min(at.query + width, p.queries);
                body(scratch, at);
            }
        });
}

} // namespace statistics
} // namespace WINDEYE_ISA
} // namespace windeye
