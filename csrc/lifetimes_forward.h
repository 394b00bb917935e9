// Forward pass over live keys: a tile of consecutive queries walks over the keys it sees with a running maximum.
#pragma once

#include "lifetimes.h"
#include "products.h"

namespace windeye {
namespace WINDEYE_ISA {

template <class T> struct LiveForwardScratch {
    Buffer<Vec<T>> query, out, score;
    Buffer<T> key_rows, value_rows;
    Row rows[BLOCK];
    const T *key[BLOCK], *value[BLOCK];
    Picked<T> picked;

    LiveForwardScratch(const Problem &p, int64_t vectors) {
        query.resize(p.head_dim * vectors);
        out.resize(p.value_dim * vectors);
        score.resize(BLOCK);
        key_rows.resize(int64_t(BLOCK) * p.head_dim);
        value_rows.resize(int64_t(BLOCK) * p.value_dim);
    }
};

template <class S, class T = typename ComputeOf<S>::T>
void live_forward_tile(const Problem &p, LiveForwardScratch<T> &scratch, const LiveKeys &live, const Tile &tile, int64_t begin, int32_t batch, int32_t head, bool careful) {
    using V = Vec<T>;
    constexpr int N = Lanes<T>::N;
    const int32_t kv_head = head / (p.heads / p.kv_heads);
    const T infinity = std::numeric_limits<T>::infinity(), log2e = Lanes<T>::log2e;
    gather_lanes<S, T>(p.query, batch, head, tile, p.head_dim, T(p.scale) * log2e, scratch.query.data);
    LaneDropout<T> dropout;
    dropout.set(p, batch, head, tile, false);

    V top[MOST_VECTORS], total[MOST_VECTORS];
    for (int v = 0; v < tile.vectors; ++v) {
        top[v] = splat<T>(-infinity);
        total[v] = V{};
    }
    V *s = scratch.score.data;
    for (int i = 0; i < p.value_dim * tile.vectors; ++i) scratch.out.data[i] = V{};
    Picked<T> &picked = scratch.picked;

    const int32_t zero[AXES] = {0, 0, 0};
    const S *keys = token_at<S>(p.key, batch, kv_head, zero), *values = token_at<S>(p.value, batch, kv_head, zero);
    const T *bias = p.lifetimes.bias ? static_cast<const T *>(p.lifetimes.bias) + bias_row(p, batch, head) : nullptr;
    visit_live(live, begin, tile, p.key, p.value, scratch.rows, [&](int count) {
        point<S, T>(p.key, keys, scratch.rows, &Row::offset_a, count, p.head_dim, tile.vectors, scratch.key_rows.data, scratch.key);
        point<S, T>(p.value, values, scratch.rows, &Row::offset_b, count, p.value_dim, tile.vectors, scratch.value_rows.data, scratch.value);
        for (int v = 0; v < tile.vectors; ++v) {
            const int shift = v * N;
            const uint64_t mine = tile.live >> shift & FULL<T>;
            picked.pick(scratch.rows, scratch.key, scratch.value, count, shift, mine);
            if (picked.count == 0) continue;
            logits<T>(picked.near, picked.count, p.head_dim, scratch.query.data + v * p.head_dim, s);
            V highest = splat<T>(-infinity);
            for (int r = 0; r < picked.count; ++r) {
                V x = s[r];
                if (bias) x += bias[picked.row(r).token] * log2e;
                x = where<T>(picked.seen[r], x, splat<T>(-infinity));
                s[r] = x;
                highest = max<T>(highest, x);
            }
            V *out = scratch.out.data + v * p.value_dim;
            const V risen = max<T>(top[v], highest);
            const V reference = risen == -infinity ? V{} : risen;
            if (any<T>(risen > top[v])) {
                const V shrink = exp2(top[v] - reference);
                total[v] *= shrink;
                for (int d = 0; d < p.value_dim; ++d) out[d] *= shrink;
                top[v] = risen;
            }
            V sum = V{};
            for (int r = 0; r < picked.count; ++r) {
                V w = exp2(s[r] - reference);
                sum += w;
                if (dropout.active) w *= dropout.at(shift, picked.row(r), false);
                s[r] = w;
            }
            total[v] += sum;
            accumulate<T>(picked.far, picked.count, p.value_dim, s, picked.seen, out, careful);
        }
    });

    for (int v = 0; v < tile.vectors; ++v) {
        const V share = total[v] == T(0) ? V{} : T(1) / total[v];
        for (int d = 0; d < p.value_dim; ++d) scratch.out.data[v * p.value_dim + d] *= share;
    }
    if (!careful && !finite<T>(scratch.out.data, p.value_dim, tile)) {
        live_forward_tile<S, T>(p, scratch, live, tile, begin, batch, head, true);
        return;
    }
    scatter_lanes<S, T>(p.out, batch, head, tile, p.value_dim, scratch.out.data);
    T *lse = static_cast<T *>(p.lse) + batch * p.tokens() * p.heads + head;
    for (int l = 0; l < tile.lanes; ++l) {
        if (!tile.has(l)) continue;
        const T sum = total[l / N][l % N];
        lse[tile.token[l] * p.heads] = sum == T(0) ? -infinity : top[l / N][l % N] * Lanes<T>::ln2 + std::log(sum);
    }
}

template <class S> void live_forward_as(const Problem &p) {
    using T = typename ComputeOf<S>::T;
    const int vectors = lifetime_vectors<T>(p), lanes = vectors * Lanes<T>::N;
    parallel_runs(
        p, lanes, [&] { return LiveForwardScratch<T>(p, vectors); },
        [&](LiveForwardScratch<T> &scratch, int32_t batch, int32_t head, int64_t query, int64_t end) {
            LiveKeys live = live_keys(p, batch, head);
            sweep<T>(p, live, query, end, vectors, [&](const Tile &tile, int64_t begin) {
                live_forward_tile<S>(p, scratch, live, tile, begin, batch, head, false);
            });
        });
}

} // namespace WINDEYE_ISA
} // namespace windeye
