// Backward pass over live keys in two walks; lanes are queries in both.
//
//   walk 1, runs of queries:  grad_query = scale sum grad_logit k
//   walk 2, ranges of keys:   grad_key = scale sum grad_logit q,  grad_value = sum weight grad_out,  grad_bias = sum grad_logit
//
// Keys that are born together may die far apart, so they are no lanes: a lane tile of keys would walk over the queries
// of its longest life. In walk 2 each range of keys has one writer, which goes over all queries that see any of them.
#pragma once

#include <array>

#include "lifetimes_forward.h"
#include "softmax_backward.h"

namespace windeye {
namespace WINDEYE_ISA {

constexpr int64_t KEY_RANGES = 32, MOST_KEYS = 4096; // pieces of walk 2, and the keys whose gradients one piece holds

#if defined(__AVX512F__)
constexpr int OUTER_ROWS = 4, OUTER_DIMS = 4;
#else
constexpr int OUTER_ROWS = 2, OUTER_DIMS = 2;
#endif

template <class T, int R, int C>
inline void outer_of(T *const *to, const T *const *p, const Vec<T> *x, int xstep, int lanes, int c) {
    constexpr int N = Lanes<T>::N;
    Vec<T> sum[R][C];
    for (int r = 0; r < R; ++r)
        for (int i = 0; i < C; ++i) sum[r][i] = unaligned_load<T>(to[r] + (c + i) * N);
    for (int l = 0; l < lanes; ++l) {
        const Vec<T> *row = x + l * xstep + c;
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int i = 0; i < C; ++i) sum[r][i] += row[i] * p[r][l];
    }
    for (int r = 0; r < R; ++r)
        for (int i = 0; i < C; ++i) unaligned_store<T>(to[r] + (c + i) * N, sum[r][i]);
}

template <class T, int R> inline void outer_rows(T *const *to, const T *const *p, const Vec<T> *x, int xstep, int lanes) {
    int c = 0;
    for (; c + OUTER_DIMS <= xstep; c += OUTER_DIMS) outer_of<T, R, OUTER_DIMS>(to, p, x, xstep, lanes, c);
    for (; c < xstep; ++c) outer_of<T, R, 1>(to, p, x, xstep, lanes, c);
}

// to[row] += sum over lanes of p[row][lane] x[lane]: lanes are summed, dims lie across the vectors.
template <class T>
void outer(T *const *to, const T *const *p, const Row *seen, int rows, const Vec<T> *x, int xstep, int lanes, bool careful) {
    if (careful) { // a lane that does not see the row must not even multiply by it
        for (int r = 0; r < rows; ++r)
            for (int l = 0; l < lanes; ++l)
                if (seen[r].mask >> l & 1) outer_rows<T, 1>(to + r, std::array<const T *, 1>{p[r] + l}.data(), x + l * xstep, xstep, 1);
        return;
    }
    int r = 0;
    for (; r + OUTER_ROWS <= rows; r += OUTER_ROWS) outer_rows<T, OUTER_ROWS>(to + r, p + r, x, xstep, lanes);
    for (; r < rows; ++r) outer_rows<T, 1>(to + r, p + r, x, xstep, lanes);
}

template <class T> struct LiveBackwardScratch {
    Buffer<Vec<T>> near, far, grad_near, weight, grad_logit;
    Buffer<Vec<T>> weight_rows, grad_logit_rows; // of all vectors side by side: [row][lane]
    Buffer<Vec<T>> query_rows, grad_rows;        // the lanes once more, as rows
    Buffer<T> near_rows, far_rows, grad_key, grad_value;
    Row rows[BLOCK];
    const T *near_row[BLOCK], *far_row[BLOCK], *weights[BLOCK], *grad_logits[BLOCK];
    T *grad_key_row[BLOCK], *grad_value_row[BLOCK];
    Picked<T> picked;
    Vec<T> lse[MOST_VECTORS], delta[MOST_VECTORS];
    LaneDropout<T> dropout;

    LiveBackwardScratch(const Problem &p, int64_t vectors) {
        constexpr int N = Lanes<T>::N;
        near.resize(p.head_dim * vectors);
        grad_near.resize(p.head_dim * vectors);
        far.resize(p.value_dim * vectors);
        weight.resize(BLOCK);
        grad_logit.resize(BLOCK);
        weight_rows.resize(BLOCK * vectors);
        grad_logit_rows.resize(BLOCK * vectors);
        near_rows.resize(int64_t(BLOCK) * p.head_dim);
        far_rows.resize(int64_t(BLOCK) * p.value_dim);
        query_rows.resize(vectors * N * ((p.head_dim + N - 1) / N));
        grad_rows.resize(vectors * N * ((p.value_dim + N - 1) / N));
    }
};

template <class S, class T>
void load_tile(const Problem &p, LiveBackwardScratch<T> &scratch, const Tile &tile, int32_t batch, int32_t head) {
    constexpr int N = Lanes<T>::N;
    const T infinity = std::numeric_limits<T>::infinity();
    gather_lanes<S, T>(p.query, batch, head, tile, p.head_dim, T(p.scale) * Lanes<T>::log2e, scratch.near.data);
    gather_lanes<S, T>(p.grad_out, batch, head, tile, p.value_dim, T(1), scratch.far.data);
    scratch.dropout.set(p, batch, head, tile, false);
    const int64_t first = batch * p.tokens() * p.heads + head;
    for (int l = 0; l < tile.lanes; ++l) {
        const bool filled = tile.has(l);
        const T value = filled ? static_cast<const T *>(p.lse)[first + tile.token[l] * p.heads] : -infinity;
        scratch.lse[l / N][l % N] = value == -infinity ? infinity : value * Lanes<T>::log2e;
        scratch.delta[l / N][l % N] = filled ? static_cast<const T *>(p.delta)[first + tile.token[l] * p.heads] : T(0);
    }
}

template <class S, class T>
void point_rows(const Problem &p, LiveBackwardScratch<T> &scratch, const Tile &tile, int32_t batch, int32_t kv_head, int count) {
    const int32_t zero[AXES] = {0, 0, 0};
    const S *keys = token_at<S>(p.key, batch, kv_head, zero), *values = token_at<S>(p.value, batch, kv_head, zero);
    point<S, T>(p.key, keys, scratch.rows, &Row::offset_a, count, p.head_dim, tile.vectors, scratch.near_rows.data, scratch.near_row);
    point<S, T>(p.value, values, scratch.rows, &Row::offset_b, count, p.value_dim, tile.vectors, scratch.far_rows.data, scratch.far_row);
}

// Weights (as the value's gradient needs them) and gradients of the logits of the rows that one vector of lanes sees.
template <class T>
void grad_logits(const Problem &p, LiveBackwardScratch<T> &scratch, const Tile &tile, int count, const T *bias, int v) {
    using V = Vec<T>;
    const int shift = v * Lanes<T>::N;
    const uint64_t mine = tile.live >> shift & FULL<T>;
    Picked<T> &picked = scratch.picked;
    picked.pick(scratch.rows, scratch.near_row, scratch.far_row, count, shift, mine);
    V *weight = scratch.weight.data, *grad_logit = scratch.grad_logit.data;
    logits<T>(picked.near, picked.count, p.head_dim, scratch.near.data + v * p.head_dim, weight);
    logits<T>(picked.far, picked.count, p.value_dim, scratch.far.data + v * p.value_dim, grad_logit);
    for (int r = 0; r < picked.count; ++r) {
        V x = weight[r];
        if (bias) x += bias[picked.row(r).token] * Lanes<T>::log2e;
        V w = exp2(x - scratch.lse[v]), kept = w, g = grad_logit[r];
        if (scratch.dropout.active) {
            const V keep = scratch.dropout.at(shift, picked.row(r), false);
            g *= keep;
            kept *= keep;
        }
        g = w * (g - scratch.delta[v]);
        grad_logit[r] = where<T>(picked.seen[r], g, V{});
        weight[r] = where<T>(picked.seen[r], kept, V{});
    }
}

template <class S, class T = typename ComputeOf<S>::T>
void live_query_tile(const Problem &p, LiveBackwardScratch<T> &scratch, const LiveKeys &live, const Tile &tile, int64_t begin, int32_t batch, int32_t head, bool careful) {
    load_tile<S, T>(p, scratch, tile, batch, head);
    const T *bias = p.lifetimes.bias ? static_cast<const T *>(p.lifetimes.bias) + bias_row(p, batch, head) : nullptr;
    Vec<T> *grad = scratch.grad_near.data;
    for (int i = 0; i < p.head_dim * tile.vectors; ++i) grad[i] = Vec<T>{};
    Picked<T> &picked = scratch.picked;
    visit_live(live, begin, tile, p.key, p.value, scratch.rows, [&](int count) {
        point_rows<S, T>(p, scratch, tile, batch, head / (p.heads / p.kv_heads), count);
        for (int v = 0; v < tile.vectors; ++v) {
            grad_logits<T>(p, scratch, tile, count, bias, v);
            accumulate<T>(picked.near, picked.count, p.head_dim, scratch.grad_logit.data, picked.seen, grad + v * p.head_dim, careful);
        }
    });
    if (!careful && !finite<T>(grad, p.head_dim, tile)) {
        live_query_tile<S, T>(p, scratch, live, tile, begin, batch, head, true);
        return;
    }
    for (int i = 0; i < p.head_dim * tile.vectors; ++i) grad[i] *= T(p.scale);
    scatter_lanes<S, T>(p.grad_query, batch, head, tile, p.head_dim, grad);
}

template <class S, class T> void as_rows(const Tensor &x, const Tile &tile, int32_t batch, int32_t head, int dim, Vec<T> *rows) {
    constexpr int N = Lanes<T>::N;
    const int step = (dim + N - 1) / N;
    for (int l = 0; l < tile.lanes; ++l) {
        if (!tile.has(l)) {
            std::fill_n(rows + l * step, step, Vec<T>{});
            continue;
        }
        rows[(l + 1) * step - 1] = Vec<T>{};
        const int32_t coord[AXES] = {0, 0, tile.coord[2][l]};
        unpack(token_at<S>(x, batch, head, coord), x.dim, dim, reinterpret_cast<T *>(rows + l * step));
    }
}

template <class S, class T>
void store_rows(const Tensor &to, const T *grad, int64_t step, int32_t batch, int32_t head, int64_t first, int64_t last, int dim, T factor) {
    for (int64_t key = first; key < last; ++key, grad += step) {
        const int32_t coord[AXES] = {0, 0, int32_t(key)};
        S *row = const_cast<S *>(token_at<S>(to, batch, head, coord));
        for (int d = 0; d < dim; ++d) row[d * to.dim] = store<S>(T(grad[d] * factor));
    }
}

// Gradients of the keys and values [first, last) of one key head.
template <class S, class T = typename ComputeOf<S>::T>
void live_key_range(const Problem &p, LiveBackwardScratch<T> &scratch, int32_t batch, int32_t kv_head, int64_t first, int64_t last, int vectors) {
    using V = Vec<T>;
    constexpr int N = Lanes<T>::N;
    const int key_vectors = (p.head_dim + N - 1) / N, value_vectors = (p.value_dim + N - 1) / N;
    const int64_t key_step = key_vectors * N, value_step = value_vectors * N, offset = p.tokens_kv() - p.tokens();
    scratch.grad_key.resize((last - first) * key_step);
    scratch.grad_value.resize((last - first) * value_step);
    std::fill_n(scratch.grad_key.data, (last - first) * key_step, T(0));
    std::fill_n(scratch.grad_value.data, (last - first) * value_step, T(0));

    const int32_t group = p.heads / p.kv_heads;
    for (int32_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        LiveKeys live = live_keys(p, batch, head);
        live.first = first;
        live.last = last;
        const int64_t end = *std::max_element(live.expiry + first, live.expiry + last);
        const T *bias = p.lifetimes.bias ? static_cast<const T *>(p.lifetimes.bias) + bias_row(p, batch, head) : nullptr;
        T *grad_bias = p.lifetimes.grad_bias ? static_cast<T *>(p.lifetimes.grad_bias) + bias_row(p, batch, head) : nullptr;
        sweep<T>(p, live, std::max<int64_t>(0, first - offset), std::min(p.tokens(), end - offset), vectors, [&](const Tile &tile, int64_t begin) {
            if (live.keys.empty()) return;
            load_tile<S, T>(p, scratch, tile, batch, head);
            as_rows<S, T>(p.query, tile, batch, head, p.head_dim, scratch.query_rows.data);
            as_rows<S, T>(p.grad_out, tile, batch, head, p.value_dim, scratch.grad_rows.data);
            const bool careful = !finite<T>(scratch.near.data, p.head_dim, tile) || !finite<T>(scratch.far.data, p.value_dim, tile);
            visit_live(live, begin, tile, p.key, p.value, scratch.rows, [&](int count) {
                point_rows<S, T>(p, scratch, tile, batch, kv_head, count);
                V *weights = scratch.weight_rows.data, *grads = scratch.grad_logit_rows.data;
                for (int v = 0; v < tile.vectors; ++v) {
                    grad_logits<T>(p, scratch, tile, count, bias, v);
                    for (int r = 0; r < count; ++r) weights[r * tile.vectors + v] = grads[r * tile.vectors + v] = V{};
                    for (int i = 0; i < scratch.picked.count; ++i) {
                        const int64_t at = (&scratch.picked.row(i) - scratch.rows) * tile.vectors + v;
                        weights[at] = scratch.weight.data[i];
                        grads[at] = scratch.grad_logit.data[i];
                    }
                }
                for (int r = 0; r < count; ++r) {
                    const int64_t key = scratch.rows[r].token - first;
                    scratch.weights[r] = reinterpret_cast<const T *>(weights + r * tile.vectors);
                    scratch.grad_logits[r] = reinterpret_cast<const T *>(grads + r * tile.vectors);
                    scratch.grad_key_row[r] = scratch.grad_key.data + key * key_step;
                    scratch.grad_value_row[r] = scratch.grad_value.data + key * value_step;
                    if (!grad_bias) continue;
                    V sum{};
                    for (int v = 0; v < tile.vectors; ++v) sum += grads[r * tile.vectors + v];
                    T total = 0;
                    for (int l = 0; l < N; ++l) total += sum[l];
                    grad_bias[scratch.rows[r].token] += total;
                }
                outer<T>(scratch.grad_key_row, scratch.grad_logits, scratch.rows, count, scratch.query_rows.data, key_vectors, tile.lanes, careful);
                outer<T>(scratch.grad_value_row, scratch.weights, scratch.rows, count, scratch.grad_rows.data, value_vectors, tile.lanes, careful);
            });
        });
    }
    store_rows<S, T>(p.grad_key, scratch.grad_key.data, key_step, batch, kv_head, first, last, p.head_dim, T(p.scale));
    store_rows<S, T>(p.grad_value, scratch.grad_value.data, value_step, batch, kv_head, first, last, p.value_dim, T(1));
}

template <class S> void live_backward_as(const Problem &p) {
    using T = typename ComputeOf<S>::T;
    delta_as<S>(p);
    const int vectors = lifetime_vectors<T>(p), lanes = vectors * Lanes<T>::N;
    const auto make = [&] { return LiveBackwardScratch<T>(p, vectors); };
    parallel_runs(p, lanes, make, [&](LiveBackwardScratch<T> &scratch, int32_t batch, int32_t head, int64_t query, int64_t end) {
        LiveKeys live = live_keys(p, batch, head);
        sweep<T>(p, live, query, end, vectors, [&](const Tile &tile, int64_t begin) {
            live_query_tile<S>(p, scratch, live, tile, begin, batch, head, false);
        });
    });

    const int64_t planes = int64_t(p.batch) * p.kv_heads, keys = p.tokens_kv();
    const int64_t wanted = std::max((KEY_RANGES + planes - 1) / planes, (keys + MOST_KEYS - 1) / MOST_KEYS);
    const int64_t ranges = std::max<int64_t>(1, std::min(wanted, keys / 128));
    parallel(planes * ranges, 1, keys * p.head_dim < 4096 ? 1 : p.threads, make, [&](LiveBackwardScratch<T> &scratch, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t plane = i / ranges, range = i % ranges;
            live_key_range<S>(p, scratch, int32_t(plane / p.kv_heads), int32_t(plane % p.kv_heads), keys * range / ranges, keys * (range + 1) / ranges, vectors);
        }
    });
}

} // namespace WINDEYE_ISA
} // namespace windeye
