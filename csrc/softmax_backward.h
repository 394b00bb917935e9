// Backward pass in two walks, so that every gradient has one writer: no locks, the same bits on every run.
//
//   delta = <grad_out, out> - grad_lse          weight = exp(logit - lse)      grad_logit = weight (<grad_out, v> - delta)
//   walk 1, lanes are queries: grad_query = scale sum grad_logit k, grad_bias
//   walk 2, lanes are keys:    grad_key = scale sum grad_logit q,   grad_value = sum weight grad_out
#pragma once

#include "softmax_forward.h"

namespace windeye {
namespace WINDEYE_ISA {

template <class T> struct BackwardScratch {
    Buffer<Vec<T>> near, far, grad_near, grad_far, weight, grad_logit;
    Buffer<T> near_rows, far_rows;
    Row rows[BLOCK];
    const T *near_row[BLOCK], *far_row[BLOCK]; // the tensors that meet in the logit, and the others
    Picked<T> picked;

    BackwardScratch(const Problem &p, const Side &side) {
        const int64_t vectors = side.lanes / Lanes<T>::N;
        near.resize(p.head_dim * vectors);
        grad_near.resize(p.head_dim * vectors);
        far.resize(p.value_dim * vectors);
        grad_far.resize(p.value_dim * vectors);
        weight.resize(BLOCK);
        grad_logit.resize(BLOCK);
        near_rows.resize(int64_t(BLOCK) * p.head_dim);
        far_rows.resize(int64_t(BLOCK) * p.value_dim);
    }
};

template <class S, class T = typename ComputeOf<S>::T> void delta_as(const Problem &p) {
    const Relation &relation = *p.relation;
    const int64_t tokens = p.tokens();
    parallel(
        tokens * p.batch, 4096, p.threads, [] { return 0; },
        [&](int, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const int32_t batch = int32_t(i / tokens);
                const int64_t token = i % tokens;
                const int32_t coord[AXES] = {int32_t(token / relation.grid[2] / relation.grid[1]),
                                             int32_t(token / relation.grid[2] % relation.grid[1]), int32_t(token % relation.grid[2])};
                for (int32_t h = 0; h < p.heads; ++h) {
                    const S *out = token_at<S>(p.out, batch, h, coord), *grad = token_at<S>(p.grad_out, batch, h, coord);
                    T sum = 0;
                    for (int d = 0; d < p.value_dim; ++d) sum += T(load(out[d * p.out.dim])) * T(load(grad[d * p.grad_out.dim]));
                    const int64_t at = i * p.heads + h;
                    // A row that saw nothing has a constant log-sum-exp, whatever gradient comes in.
                    const bool empty = static_cast<const T *>(p.lse)[at] == -std::numeric_limits<T>::infinity();
                    static_cast<T *>(p.delta)[at] = empty ? T(0) : sum - static_cast<const T *>(p.grad_lse)[at];
                }
            }
        });
}

template <class S, class T = typename ComputeOf<S>::T>
void query_tile(const Problem &p, BackwardScratch<T> &scratch, int32_t batch, int32_t head, int64_t number, T *grad_bias, bool careful) {
    using V = Vec<T>;
    constexpr int N = Lanes<T>::N;
    const Relation &relation = *p.relation;
    const int32_t kv_head = head / (p.heads / p.kv_heads);
    const T infinity = std::numeric_limits<T>::infinity(), log2e = Lanes<T>::log2e;

    Tile tile;
    place(relation.forward, relation.grid, number, N, tile);
    gather_lanes<S, T>(p.query, batch, head, tile, p.head_dim, T(p.scale) * log2e, scratch.near.data);
    gather_lanes<S, T>(p.grad_out, batch, head, tile, p.value_dim, T(1), scratch.far.data);
    LaneBias<T> bias;
    bias.set_table(p, head);
    bias.set_lanes(p, tile, false);
    LaneDropout<T> dropout;
    dropout.set(p, batch, head, tile, false);

    V lse[MOST_VECTORS], delta[MOST_VECTORS];
    const int64_t first = batch * p.tokens() * p.heads + head;
    for (int l = 0; l < tile.lanes; ++l) {
        const bool filled = tile.has(l);
        const T value = filled ? static_cast<const T *>(p.lse)[first + tile.token[l] * p.heads] : -infinity;
        lse[l / N][l % N] = value == -infinity ? infinity : value * log2e;
        delta[l / N][l % N] = filled ? static_cast<const T *>(p.delta)[first + tile.token[l] * p.heads] : T(0);
    }
    V *grad = scratch.grad_near.data, *weight = scratch.weight.data, *grad_logit = scratch.grad_logit.data;
    for (int i = 0; i < p.head_dim * tile.vectors; ++i) grad[i] = V{};
    Picked<T> &picked = scratch.picked;

    const int32_t zero[AXES] = {0, 0, 0};
    const S *keys = token_at<S>(p.key, batch, kv_head, zero), *values = token_at<S>(p.value, batch, kv_head, zero);
    const uint8_t *hidden = p.key_padding ? p.key_padding + batch * p.tokens_kv() : nullptr;
    visit_rows(relation, false, tile, p.key, p.value, hidden, p.bias ? bias.stride : nullptr, scratch.rows, [&](int count) {
        point<S, T>(p.key, keys, scratch.rows, &Row::offset_a, count, p.head_dim, tile.vectors, scratch.near_rows.data, scratch.near_row);
        point<S, T>(p.value, values, scratch.rows, &Row::offset_b, count, p.value_dim, tile.vectors, scratch.far_rows.data, scratch.far_row);
        for (int v = 0; v < tile.vectors; ++v) {
            const int shift = v * N;
            const uint64_t mine = tile.live >> shift & FULL<T>;
            picked.pick(scratch.rows, scratch.near_row, scratch.far_row, count, shift, mine);
            if (picked.count == 0) continue;
            logits<T>(picked.near, picked.count, p.head_dim, scratch.near.data + v * p.head_dim, weight);
            logits<T>(picked.far, picked.count, p.value_dim, scratch.far.data + v * p.value_dim, grad_logit);
            for (int r = 0; r < picked.count; ++r) {
                V x = weight[r];
                if (p.bias) x += bias.at(shift, picked.row(r), false) * log2e;
                V g = grad_logit[r];
                if (dropout.active) g *= dropout.at(shift, picked.row(r), false);
                g = exp2(x - lse[v]) * (g - delta[v]);
                const uint64_t seen = picked.seen[r];
                g = where<T>(seen, g, V{});
                grad_logit[r] = g;
                if (grad_bias)
                    for (int l = 0; l < N; ++l)
                        if (seen >> l & 1) grad_bias[bias.index(shift + l, picked.row(r), false)] += g[l];
            }
            accumulate<T>(picked.near, picked.count, p.head_dim, grad_logit, picked.seen, grad + v * p.head_dim, careful);
        }
    });
    if (!careful && !finite<T>(grad, p.head_dim, tile)) {
        query_tile<S, T>(p, scratch, batch, head, number, nullptr, true);
        return;
    }
    for (int i = 0; i < p.head_dim * tile.vectors; ++i) grad[i] *= T(p.scale);
    scatter_lanes<S, T>(p.grad_query, batch, head, tile, p.head_dim, grad);
}

template <class S, class T = typename ComputeOf<S>::T>
void key_tile(const Problem &p, BackwardScratch<T> &scratch, int32_t batch, int32_t kv_head, int64_t number, bool careful) {
    using V = Vec<T>;
    constexpr int N = Lanes<T>::N;
    const Relation &relation = *p.relation;
    const int32_t group = p.heads / p.kv_heads;
    const T log2e = Lanes<T>::log2e;

    Tile tile;
    place(relation.transposed, relation.grid_kv, number, N, tile);
    if (p.key_padding)
        for (int l = 0; l < tile.lanes; ++l)
            if (tile.has(l) && p.key_padding[batch * p.tokens_kv() + tile.token[l]]) tile.live &= ~(uint64_t(1) << l);
    gather_lanes<S, T>(p.key, batch, kv_head, tile, p.head_dim, T(p.scale) * log2e, scratch.near.data);
    gather_lanes<S, T>(p.value, batch, kv_head, tile, p.value_dim, T(1), scratch.far.data);
    V *grad_key = scratch.grad_near.data, *grad_value = scratch.grad_far.data;
    V *weight = scratch.weight.data, *grad_logit = scratch.grad_logit.data;
    for (int i = 0; i < p.head_dim * tile.vectors; ++i) grad_key[i] = V{};
    for (int i = 0; i < p.value_dim * tile.vectors; ++i) grad_value[i] = V{};
    Picked<T> &picked = scratch.picked;

    for (int32_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        LaneBias<T> bias;
        bias.set_table(p, head);
        bias.set_lanes(p, tile, true);
        LaneDropout<T> dropout;
        dropout.set(p, batch, head, tile, true);
        const int32_t zero[AXES] = {0, 0, 0};
        const S *queries = token_at<S>(p.query, batch, head, zero), *grads = token_at<S>(p.grad_out, batch, head, zero);
        const int64_t first = batch * p.tokens() * p.heads + head;
        const T *lse = static_cast<const T *>(p.lse) + first, *delta = static_cast<const T *>(p.delta) + first;
        visit_rows(relation, true, tile, p.query, p.grad_out, nullptr, p.bias ? bias.stride : nullptr, scratch.rows, [&](int count) {
            point<S, T>(p.query, queries, scratch.rows, &Row::offset_a, count, p.head_dim, tile.vectors, scratch.near_rows.data, scratch.near_row);
            point<S, T>(p.grad_out, grads, scratch.rows, &Row::offset_b, count, p.value_dim, tile.vectors, scratch.far_rows.data, scratch.far_row);
                for (int v = 0; v < tile.vectors; ++v) {
                const int shift = v * N;
                const uint64_t mine = tile.live >> shift & FULL<T>;
                picked.pick(scratch.rows, scratch.near_row, scratch.far_row, count, shift, mine);
                if (picked.count == 0) continue;
                logits<T>(picked.near, picked.count, p.head_dim, scratch.near.data + v * p.head_dim, weight);
                logits<T>(picked.far, picked.count, p.value_dim, scratch.far.data + v * p.value_dim, grad_logit);
                for (int r = 0; r < picked.count; ++r) {
                    const int64_t at = int64_t(picked.row(r).token) * p.heads;
                    V x = weight[r];
                    if (p.bias) x += bias.at(shift, picked.row(r), true) * log2e;
                    V w = exp2(x - lse[at] * log2e), g = grad_logit[r], kept = w;
                    if (dropout.active) {
                        const V keep = dropout.at(shift, picked.row(r), true);
                        g *= keep;
                        kept *= keep;
                    }
                    g = w * (g - delta[at]);
                    grad_logit[r] = where<T>(picked.seen[r], g, V{});
                    weight[r] = where<T>(picked.seen[r], kept, V{});
                }
                accumulate<T>(picked.near, picked.count, p.head_dim, grad_logit, picked.seen, grad_key + v * p.head_dim, careful);
                accumulate<T>(picked.far, picked.count, p.value_dim, weight, picked.seen, grad_value + v * p.value_dim, careful);
            }
        });
    }
    if (!careful && !(finite<T>(grad_key, p.head_dim, tile) && finite<T>(grad_value, p.value_dim, tile))) {
        key_tile<S, T>(p, scratch, batch, kv_head, number, true);
        return;
    }
    for (int i = 0; i < p.head_dim * tile.vectors; ++i) grad_key[i] *= T(p.scale);
    scatter_lanes<S, T>(p.grad_key, batch, kv_head, tile, p.head_dim, grad_key);
    scatter_lanes<S, T>(p.grad_value, batch, kv_head, tile, p.value_dim, grad_value);
}

template <class S> void backward_as(const Problem &p) {
    using T = typename ComputeOf<S>::T;
    const Relation &relation = *p.relation;
    delta_as<S>(p);

    // Bias gradients are summed over a fixed partition of the tiles, so that the result does not depend on the threads.
    const int64_t tiles = relation.forward.tiles(), planes = int64_t(p.batch) * p.heads;
    const int64_t chunks = p.grad_bias ? p.bias_chunks : tiles;
    const int64_t grain = p.grad_bias ? 1 : grain_of(p, relation.forward, 3);
    parallel(
        planes * chunks, grain, p.threads, [&] { return BackwardScratch<T>(p, relation.forward); },
        [&](BackwardScratch<T> &scratch, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t plane = i / chunks, chunk = i % chunks;
                T *grad_bias = p.grad_bias ? static_cast<T *>(p.grad_bias) + i * p.bias_entries() : nullptr;
                for (int64_t tile = tiles * chunk / chunks; tile < tiles * (chunk + 1) / chunks; ++tile)
                    query_tile<S>(p, scratch, int32_t(plane / p.heads), int32_t(plane % p.heads), tile, grad_bias, false);
            }
        });

    const int64_t key_tiles = relation.transposed.tiles();
    parallel(
        key_tiles * p.batch * p.kv_heads, grain_of(p, relation.transposed, 4 * (p.heads / p.kv_heads)), p.threads,
        [&] { return BackwardScratch<T>(p, relation.transposed); },
        [&](BackwardScratch<T> &scratch, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t plane = i / key_tiles;
                key_tile<S>(p, scratch, int32_t(plane / p.kv_heads), int32_t(plane % p.kv_heads), i % key_tiles, false);
            }
        });
}

} // namespace WINDEYE_ISA
} // namespace windeye
