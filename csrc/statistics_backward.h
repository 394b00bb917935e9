// Gradients of row statistics to queries and keys, from the normalisers: logits are computed again, no map is kept. Like
// attention's own backward pass it walks twice, so that every gradient has one writer.
#pragma once

#include "statistics_features.h"
#include "statistics_queries.h"
#include "statistics_walk.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace statistics {

using windeye::statistics::Gradients;

template <class T> struct BackwardPlan {
    Logit<T> logit;
    Features<T> features;
    Tables<T> tables;
    TileShape shape;
    Outline outline;

    BackwardPlan(const Problem &p, const Rows &rows) : logit(p), features(p, rows), tables(rows), shape(p), outline(p) {}
};

// A block of pairs: logits, and what the loss pulls at them.
template <class T> struct Pulls {
    Buffer<Vec<T>> score, pull, bend;

    Pulls() {
        score.resize(BLOCK);
        pull.resize(BLOCK);
        bend.resize(BLOCK);
    }

    // Logits of the rows [first, last), and their derivative where there is a cap.
    void logits_of(const Logit<T> &logit, const T *const *rows, int first, int last, int dim, const Vec<T> *lanes) {
        Vec<T> *s = score.data;
        logits<T>(rows + first, last - first, dim, lanes, s + first);
        logit.finish(s + first, last - first);
        if (logit.cap == T(0)) return;
        for (int r = first; r < last; ++r) {
            const Vec<T> share = s[r] * (T(1) / logit.cap);
            bend.data[r] = T(1) - share * share;
        }
    }

    // x: the weight's logarithm to the base of 2.
    void finish(const Logit<T> &logit, int r, Vec<T> x, Vec<T> entropy, Vec<T> squares) {
        const Vec<T> weight = exp2(x);
        const Vec<T> pulled = weight * (pull.data[r] + entropy * x + squares * weight);
        score.data[r] = logit.cap == T(0) ? pulled : pulled * bend.data[r];
    }
};

template <class T> T at_row(const void *x, int64_t row) { return x ? static_cast<const T *>(x)[row] : T(0); }

template <class S, class T> struct QueryGradientScratch {
    Packed<S, T> keys;
    Buffer<Vec<T>> query, out, features, tables;
    struct Factors {
        Vec<T> lse, constant, entropy, squares, distance;
    } factors[SHARED_VECTORS];
    Pulls<T> pulls;
    TileSight<T> seen;

    QueryGradientScratch(const Problem &p, const Rows &rows, const TileShape &shape) : keys(p.head_dim) {
        query.resize(int64_t(shape.vectors()) * p.head_dim);
        out.resize(int64_t(shape.vectors()) * p.head_dim);
        features.resize(int64_t(shape.vectors()) * rows.feature_count);
        tables.resize(int64_t(shape.vectors()) * rows.table_count);
    }
};

template <class S, class T>
void begin_query_gradient(const Problem &p, const Rows &rows, const Gradients &g, const BackwardPlan<T> &plan, QueryGradientScratch<S, T> &scratch, const TilePlace &at) {
    constexpr int N = Lanes<T>::N;
    scratch.seen.begin(p, at);
    const Tile &tile = scratch.seen.tile;
    for (int h = 0; h < at.heads(); ++h) {
        gather_lanes<S, T>(p.query, at.batch, at.head + h, tile, p.head_dim, plan.logit.factor, scratch.query.data + int64_t(h) * tile.vectors * p.head_dim);
        for (int l = 0; l < tile.lanes; ++l) {
            const int number = h * tile.vectors + l / N, i = l % N;
            const int64_t row = tile.has(l) ? at.row(p, at.query + l, h) : at.row(p, at.query, h);
            auto &factors = scratch.factors[number];
            factors.lse[i] = at_row<T>(p.lse, row) * Lanes<T>::log2e;
            factors.constant[i] = at_row<T>(g.constant, row);
            factors.entropy[i] = at_row<T>(g.entropy, row) * Lanes<T>::ln2;
            factors.squares[i] = at_row<T>(g.squares, row);
            factors.distance[i] = at_row<T>(g.distance, row);
            for (int c = 0; c < rows.feature_count; ++c) scratch.features.data[number * rows.feature_count + c][i] = at_row<T>(g.features, row * rows.feature_count + c);
            for (int f = 0; f < rows.table_count; ++f) scratch.tables.data[number * rows.table_count + f][i] = at_row<T>(g.tables, row * rows.table_count + f);
        }
    }
    std::fill_n(scratch.out.data, int64_t(at.heads()) * tile.vectors * p.head_dim, Vec<T>{});
}

// One vector of queries is pulled by the rows of a block that it sees.
template <class S, class T>
void pull_queries(const Problem &p, const Rows &rows, const Gradients &g, const BackwardPlan<T> &plan, QueryGradientScratch<S, T> &scratch, const TilePlace &at,
                  int32_t block, int q, int h, bool careful) {
    using V = Vec<T>;
    constexpr int N = Lanes<T>::N;
    const Sight<T> &sight = scratch.seen.sight[q];
    const int number = h * scratch.seen.tile.vectors + q, first = sight.first, last = sight.last;
    const auto &factors = scratch.factors[number];
    const int64_t lead = int64_t(at.query) + q * N + p.offset - block;
    const T *bias = p.bias ? static_cast<const T *>(p.bias) + at.batch * p.bias_batch + (at.head + h) * p.bias_head + block : nullptr;
    scratch.pulls.logits_of(plan.logit, scratch.keys.row, first, last, p.head_dim, scratch.query.data + int64_t(number) * p.head_dim);
    V *s = scratch.pulls.score.data, *pull = scratch.pulls.pull.data, place;
    for (int l = 0; l < N; ++l) place[l] = T(lead + l);
    for (int r = first; r < last; ++r) {
        const V apart = place - T(r);
        pull[r] = factors.constant + factors.distance * max<T>(apart, -apart);
    }
    if (rows.feature_count) plan.features.spread(at.batch, block, first, last, scratch.features.data + number * rows.feature_count, pull);
    if (rows.table_count) plan.tables.spread(lead, first, last, scratch.tables.data + number * rows.table_count, pull);
    for (int r = first; r < last; ++r) {
        V x = s[r] - factors.lse;
        if (bias) x += bias[r] * Lanes<T>::log2e;
        if (!sight.full) x = where<T>(sight.seen[r], x, splat<T>(HIDDEN<T>));
        scratch.pulls.finish(plan.logit, r, x, factors.entropy, factors.squares);
    }
    accumulate<T>(scratch.keys.row + first, last - first, p.head_dim, s + first, sight.seen + first, scratch.out.data + int64_t(number) * p.head_dim, careful);
}

template <class S, class T>
void query_gradient(const Problem &p, const Rows &rows, const Gradients &g, const BackwardPlan<T> &plan, QueryGradientScratch<S, T> &scratch, const TilePlace &at, bool careful) {
    begin_query_gradient(p, rows, g, plan, scratch, at);
    const Tile &tile = scratch.seen.tile;
    scratch.seen.walk(p, [&](int32_t block, int first, int last) {
        scratch.keys.bring(p.key, at.batch, at.kv_head, p.head_dim, first, last - first, [&](int i) { return int64_t(block) + first + i; });
        for (int q = 0; q < tile.vectors; ++q)
            if (scratch.seen.sight[q].first < scratch.seen.sight[q].last)
                for (int h = 0; h < at.heads(); ++h) pull_queries(p, rows, g, plan, scratch, at, block, q, h, careful);
    });
    for (int h = 0; h < at.heads(); ++h) {
        Vec<T> *out = scratch.out.data + int64_t(h) * tile.vectors * p.head_dim;
        if (!careful && !finite<T>(out, p.head_dim, tile)) return query_gradient(p, rows, g, plan, scratch, at, true);
        for (int i = 0; i < tile.vectors * p.head_dim; ++i) out[i] *= T(p.scale);
        scatter_lanes<S, T>(g.query, at.batch, at.head + h, tile, p.head_dim, out);
    }
}

template <class S, class T> struct KeyGradientScratch {
    QueryBlock<S, T> rows;
    Buffer<Vec<T>> key, out, features; // features: [vector][feature]
    Vec<T> bias[MOST_VECTORS];
    Pulls<T> pulls;
    Tile tile;

    KeyGradientScratch(const Problem &p, const Rows &asked) : rows(p.head_dim) {
        key.resize(int64_t(MOST_VECTORS) * p.head_dim);
        out.resize(int64_t(MOST_VECTORS) * p.head_dim);
        features.resize(int64_t(MOST_VECTORS) * asked.feature_count);
    }
};

// One vector of keys is pulled by the packed queries that see it.
template <class S, class T>
void pull_keys(const Problem &p, const Rows &asked, const Gradients &g, const BackwardPlan<T> &plan, KeyGradientScratch<S, T> &scratch, int32_t batch, int32_t head, int v, bool careful) {
    using V = Vec<T>;
    constexpr int N = Lanes<T>::N;
    const QueryBlock<S, T> &rows = scratch.rows;
    const int first = rows.first, last = rows.last;
    scratch.pulls.logits_of(plan.logit, rows.queries.row, first, last, p.head_dim, scratch.key.data + int64_t(v) * p.head_dim);
    V *s = scratch.pulls.score.data, *pull = scratch.pulls.pull.data, place;
    const V *features = scratch.features.data + v * asked.feature_count;
    for (int l = 0; l < N; ++l) place[l] = T(scratch.tile.coord[2][v * N] + l - p.offset);
    for (int r = first; r < last; ++r) {
        const int64_t t = rows.token[r], row = (int64_t(batch) * p.queries + t) * p.heads + head;
        const V apart = T(t) - place;
        pull[r] = at_row<T>(g.constant, row) + at_row<T>(g.distance, row) * max<T>(apart, -apart);
        for (int c = 0; c < asked.feature_count; ++c) pull[r] += at_row<T>(g.features, row * asked.feature_count + c) * features[c];
        if (asked.table_count)
            plan.tables.spread_back(t + p.offset - scratch.tile.coord[2][v * N], static_cast<const T *>(g.tables) + row * asked.table_count, pull[r]);
        V x = s[r] + scratch.bias[v] - at_row<T>(p.lse, row) * Lanes<T>::log2e;
        if (!rows.full) x = where<T>(rows.seen[r], x, splat<T>(HIDDEN<T>));
        scratch.pulls.finish(plan.logit, r, x, splat<T>(at_row<T>(g.entropy, row) * Lanes<T>::ln2), splat<T>(at_row<T>(g.squares, row)));
    }
    accumulate<T>(rows.queries.row + first, last - first, p.head_dim, s + first, rows.seen + first, scratch.out.data + int64_t(v) * p.head_dim, careful);
}

template <class S, class T>
void key_gradient(const Problem &p, const Rows &asked, const Gradients &g, const BackwardPlan<T> &plan, KeyGradientScratch<S, T> &scratch, int32_t batch, int32_t kv_head, int32_t key, int32_t key_end, bool careful) {
    constexpr int N = Lanes<T>::N;
    const Lags all{std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()};
    const int32_t group = p.heads / p.kv_heads;
    Tile &tile = scratch.tile;
    neighbours<T>(key, key_end, tile);
    gather_lanes<S, T>(p.key, batch, kv_head, tile, p.head_dim, plan.logit.factor, scratch.key.data);
    std::fill_n(scratch.out.data, int64_t(tile.vectors) * p.head_dim, Vec<T>{});
    for (int l = 0; l < tile.lanes; ++l)
        for (int c = 0; c < asked.feature_count; ++c)
            scratch.features.data[l / N * asked.feature_count + c][l % N] = tile.has(l) ? plan.features.of(batch, tile.token[l])[c] : T(0);
    for (int32_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        gather_bias<T>(p, batch, head, tile, scratch.bias);
        for (int32_t block = 0; block * BLOCK < p.queries; ++block) {
            if (!plan.outline.touches(p.run_batch == 1 ? 0 : batch, block, key, key_end)) continue;
            scratch.rows.bring(p, batch, head, block, 0, p.queries, [](int64_t) { return true; });
            for (int v = 0; v < tile.vectors; ++v) {
                const int32_t at = key + v * N;
                if (scratch.rows.look(p, plan.outline, batch, at, std::min(at + N, key_end), all)) pull_keys(p, asked, g, plan, scratch, batch, head, v, careful);
            }
        }
    }
    if (!careful && !finite<T>(scratch.out.data, p.head_dim, tile)) return key_gradient(p, asked, g, plan, scratch, batch, kv_head, key, key_end, true);
    for (int i = 0; i < tile.vectors * p.head_dim; ++i) scratch.out.data[i] *= T(p.scale);
    scatter_lanes<S, T>(g.key, batch, kv_head, tile, p.head_dim, scratch.out.data);
}

template <class S> void backward_as(const Problem &p, const Rows &rows, const Gradients &g) {
    using T = typename ComputeOf<S>::T;
    const BackwardPlan<T> plan(p, rows);
    each_tile<T>(
        p, plan.shape, [&] { return QueryGradientScratch<S, T>(p, rows, plan.shape); },
        [&](QueryGradientScratch<S, T> &scratch, const TilePlace &at) { query_gradient(p, rows, g, plan, scratch, at, false); });
    constexpr int32_t width = MOST_VECTORS * Lanes<T>::N;
    const int32_t tiles = (p.keys + width - 1) / width;
    const int64_t work = int64_t(p.queries) * width * p.head_dim * 4 * (p.heads / p.kv_heads);
    parallel(
        int64_t(p.batch) * p.kv_heads * tiles, std::max<int64_t>(1, 2000000 / std::max<int64_t>(1, work)), p.threads,
        [&] { return KeyGradientScratch<S, T>(p, rows); },
        [&](KeyGradientScratch<S, T> &scratch, int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) {
                const int64_t plane = i / tiles;
                const int32_t key = int32_t(i % tiles) * width;
                key_gradient(p, rows, g, plan, scratch, int32_t(plane / p.kv_heads), int32_t(plane % p.kv_heads), key, std::min(key + width, p.keys), false);
            }
        });
}

} // namespace statistics
} // namespace WINDEYE_ISA
} // namespace windeye
