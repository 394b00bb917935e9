// Sums over the keys of each query, with a running maximum: everything that is asked for in one walk, no map.
#pragma once

#include "statistics_features.h"
#include "statistics_ranks.h"
#include "statistics_walk.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace statistics {

// What the weights of one vector of queries add up to over the rows of a block.
template <class T> struct BlockSums {
    Vec<T> weight{}, entropy{}, square{}, moment{};
};

// Logits become weights relative to `reference`, in place.
template <class T, bool ENTROPY, bool SQUARES, bool DISTANCE>
BlockSums<T> weigh(Vec<T> *s, int first, int last, Vec<T> reference) {
    BlockSums<T> sums;
    Vec<T> place = splat<T>(T(first));
    for (int r = first; r < last; ++r) {
        const Vec<T> x = s[r] - reference, w = exp2(x);
        s[r] = w;
        sums.weight += w;
        if constexpr (ENTROPY) sums.entropy += w * x;
        if constexpr (SQUARES) sums.square += w * w;
        if constexpr (DISTANCE) {
            sums.moment += w * place;
            place += T(1);
        }
    }
    return sums;
}

// Weights times |query - row|, where lane l is `lead + l` tokens after row 0: two sums suffice where all is on one side.
template <class T> Vec<T> distances(int64_t lead, const Vec<T> *w, int first, int last, const BlockSums<T> &sums) {
    constexpr int N = Lanes<T>::N;
    Vec<T> place;
    for (int l = 0; l < N; ++l) place[l] = T(lead + l);
    if (lead >= last - 1) return place * sums.weight - sums.moment;
    if (lead + N - 1 <= first) return sums.moment - place * sums.weight;
    Vec<T> sum{};
    for (int r = first; r < last; ++r) {
        const Vec<T> apart = place - T(r);
        sum += w[r] * max<T>(apart, -apart);
    }
    return sum;
}

template <class T> struct RowPlan {
    using Weigh = BlockSums<T> (*)(Vec<T> *, int, int, Vec<T>);
    Logit<T> logit;
    Features<T> features;
    Tables<T> tables;
    TileShape shape;
    Weigh weigh_block;

    RowPlan(const Problem &p, const Rows &rows) : logit(p), features(p, rows), tables(rows), shape(p) {
        static constexpr Weigh choices[2][2][2] = {
            {{weigh<T, false, false, false>, weigh<T, false, false, true>}, {weigh<T, false, true, false>, weigh<T, false, true, true>}},
            {{weigh<T, true, false, false>, weigh<T, true, false, true>}, {weigh<T, true, true, false>, weigh<T, true, true, true>}}};
        weigh_block = choices[rows.entropy != nullptr][rows.squares != nullptr][rows.distance != nullptr];
    }
};

// One vector of queries of one head, and what it has added up so far; sums are relative to the running maximum.
template <class T> struct RowState {
    Vec<T> top, total, entropy, squares, distance;
};

template <class S, class T> struct RowScratch {
    Packed<S, T> keys;
    Buffer<Vec<T>> query, score, features, tables; // query: [vector][dim]
    RowState<T> state[SHARED_VECTORS];
    std::vector<Ranks<T>> ranks;
    TileSight<T> seen;

    RowScratch(const Problem &p, const Rows &rows, const RowPlan<T> &plan) : keys(p.head_dim) {
        const int vectors = plan.shape.vectors();
        query.resize(int64_t(vectors) * p.head_dim);
        score.resize(BLOCK);
        features.resize(int64_t(vectors) * rows.feature_count);
        tables.resize(int64_t(vectors) * rows.table_count);
        if (rows.top) ranks.resize(vectors);
    }
};

template <class S, class T> void begin_rows(const Problem &p, const Rows &rows, const RowPlan<T> &plan, RowScratch<S, T> &scratch, const TilePlace &at) {
    scratch.seen.begin(p, at);
    const int vectors = scratch.seen.tile.vectors;
    for (int h = 0; h < at.heads(); ++h) {
        gather_lanes<S, T>(p.query, at.batch, at.head + h, scratch.seen.tile, p.head_dim, plan.logit.factor,
                           scratch.query.data + int64_t(h) * vectors * p.head_dim);
        const T sink = p.sink ? static_cast<const T *>(p.sink)[at.head + h] * Lanes<T>::log2e : HIDDEN<T>;
        for (int q = 0; q < vectors; ++q) {
            scratch.state[h * vectors + q] = RowState<T>{};
            scratch.state[h * vectors + q].top = splat<T>(sink > HIDDEN<T> ? sink : HIDDEN<T>);
            if (rows.top) scratch.ranks[h * vectors + q].begin();
        }
    }
    std::fill_n(scratch.features.data, at.heads() * vectors * rows.feature_count, Vec<T>{});
    std::fill_n(scratch.tables.data, at.heads() * vectors * rows.table_count, Vec<T>{});
}

// Sums relative to an old maximum become sums relative to a new one.
template <class T> void rescale(RowState<T> &state, Vec<T> reference, Vec<T> *features, int feature_count, Vec<T> *tables, int table_count) {
    const Vec<T> shrink = exp2(state.top - reference);
    state.entropy = shrink * (state.entropy + state.total * (state.top - reference));
    state.total *= shrink;
    state.squares *= shrink * shrink;
    state.distance *= shrink;
    for (int i = 0; i < feature_count; ++i) features[i] *= shrink;
    for (int i = 0; i < table_count; ++i) tables[i] *= shrink;
}

// One vector takes in the rows of a block that it sees; their keys are packed.
template <class S, class T>
void take_block(const Problem &p, const Rows &rows, const RowPlan<T> &plan, RowScratch<S, T> &scratch, const TilePlace &at, int32_t block, int q, int h) {
    using V = Vec<T>;
    const Sight<T> &sight = scratch.seen.sight[q];
    const int number = h * scratch.seen.tile.vectors + q, first = sight.first, last = sight.last;
    RowState<T> &state = scratch.state[number];
    V *features = scratch.features.data + number * rows.feature_count, *tables = scratch.tables.data + number * rows.table_count;
    V *s = scratch.score.data;
    logits<T>(scratch.keys.row + first, last - first, p.head_dim, scratch.query.data + int64_t(number) * p.head_dim, s + first);
    plan.logit.finish(s + first, last - first);
    if (p.bias) {
        const T *bias = static_cast<const T *>(p.bias) + at.batch * p.bias_batch + (at.head + h) * p.bias_head + block;
        for (int r = first; r < last; ++r) s[r] += bias[r] * Lanes<T>::log2e;
    }
    if (!sight.full)
        for (int r = first; r < last; ++r) s[r] = where<T>(sight.seen[r], s[r], splat<T>(HIDDEN<T>));
    V highest = splat<T>(HIDDEN<T>);
    for (int r = first; r < last; ++r) highest = max<T>(highest, s[r]);
    const V risen = max<T>(state.top, highest);
    const V reference = risen == HIDDEN<T> ? V{} : risen;
    if (any<T>(risen > state.top)) {
        rescale(state, reference, features, rows.feature_count, tables, rows.table_count);
        state.top = risen;
    }
    if (rows.top) scratch.ranks[number].take(s, first, last, highest, block, rows.top);
    const BlockSums<T> sums = plan.weigh_block(s, first, last, reference);
    state.total += sums.weight;
    state.entropy += sums.entropy;
    state.squares += sums.square;
    const int64_t lead = int64_t(at.query) + q * Lanes<T>::N + p.offset - block; // distance of the first lane to row 0
    if (rows.distance) state.distance += distances<T>(lead, s, first, last, sums);
    if (rows.feature_count) plan.features.take(at.batch, block, s, first, last, sums.weight, features);
    if (rows.table_count) plan.tables.take(lead, s, first, last, sums.weight, tables);
}

template <class S, class T> void end_rows(const Problem &p, const Rows &rows, RowScratch<S, T> &scratch, const TilePlace &at) {
    constexpr int N = Lanes<T>::N;
    const auto put = [](void *to, int64_t place, T x) { if (to) static_cast<T *>(to)[place] = x; };
    for (int h = 0; h < at.heads(); ++h)
        for (int32_t query = at.query; query < at.query_end; ++query) {
            const int number = h * scratch.seen.tile.vectors + (query - at.query) / N, l = (query - at.query) % N;
            const int64_t place = at.row(p, query, h);
            const RowState<T> &state = scratch.state[number];
            const T top = state.top[l], keys = state.total[l];
            const T sink = p.sink ? std::exp2(static_cast<const T *>(p.sink)[at.head + h] * Lanes<T>::log2e - top) : T(0);
            const T whole = keys + sink, share = whole == T(0) ? T(0) : T(1) / whole;
            const T above = whole == T(0) ? T(0) : std::log2(whole); // of the normaliser over the maximum
            put(p.lse, place, whole == T(0) ? -std::numeric_limits<T>::infinity() : (top + above) * Lanes<T>::ln2);
            put(rows.mass, place, keys * share);
            put(rows.entropy, place, (above * keys - state.entropy[l]) * share * Lanes<T>::ln2);
            put(rows.squares, place, state.squares[l] * share * share);
            put(rows.distance, place, state.distance[l] * share);
            for (int c = 0; c < rows.feature_count; ++c)
                put(rows.feature_sums, place * rows.feature_count + c, scratch.features.data[number * rows.feature_count + c][l] * share);
            for (int f = 0; f < rows.table_count; ++f)
                put(rows.table_sums, place * rows.table_count + f, scratch.tables.data[number * rows.table_count + f][l] * share);
            for (int k = 0; k < rows.top; ++k) {
                const auto ranked = scratch.ranks[number].at(l, k);
                put(rows.top_weight, place * rows.top + k, ranked.key < 0 ? T(0) : std::exp2(ranked.score - top) * share);
                rows.top_key[place * rows.top + k] = ranked.key;
            }
        }
}

template <class S, class T> void walk_rows(const Problem &p, const Rows &rows, const RowPlan<T> &plan, RowScratch<S, T> &scratch, const TilePlace &at) {
    begin_rows(p, rows, plan, scratch, at);
    scratch.seen.walk(p, [&](int32_t block, int first, int last) {
        scratch.keys.bring(p.key, at.batch, at.kv_head, p.head_dim, first, last - first, [&](int i) { return int64_t(block) + first + i; });
        for (int q = 0; q < scratch.seen.tile.vectors; ++q)
            if (scratch.seen.sight[q].first < scratch.seen.sight[q].last)
                for (int h = 0; h < at.heads(); ++h) take_block(p, rows, plan, scratch, at, block, q, h);
    });
    end_rows(p, rows, scratch, at);
}

template <class S> void rows_as(const Problem &p, const Rows &rows) {
    using T = typename ComputeOf<S>::T;
    const RowPlan<T> plan(p, rows);
    each_tile<T>(
        p, plan.shape, [&] { return RowScratch<S, T>(p, rows, plan); },
        [&](RowScratch<S, T> &scratch, const TilePlace &at) { walk_rows(p, rows, plan, scratch, at); });
}

} // namespace statistics
} // namespace WINDEYE_ISA
} // namespace windeye
