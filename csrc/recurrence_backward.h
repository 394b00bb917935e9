// Backward pass in two walks over the chunks; states are computed again, nothing is stored between the walks.
//
// With g_i the gradient of the sums of token i, u = <q_i, k_j> and p[i][j] = <g_i, v_j> kept[i][j] weight'(u):
//   left to right:  grad_q_i = sum_j p[i][j] k_j + since_i phi'(q_i)^T (state g_i),           state as in the forward pass
//   right to left:  grad_k_j = sum_i p[i][j] q_i + until_j phi'(k_j)^T (pull v_j)
//                   grad_v_j = sum_i weight(u) kept[i][j] g_i + until_j phi(k_j) pull
//                   pull     = whole pull + sum_i since_i phi(q_i) g_i^T,           starting at the final state's gradient
// The log-decay of token t gets sum_{i>=t} (<g_i, sums_i> - <v_i, grad_v_i>) + <final state, its gradient>.
#pragma once

#include "recurrence_forward.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace recurrence {

template <class T> struct BackwardScratch {
    Sizes<T> sizes;
    Ahead ahead;
    std::vector<Decay<T>> decays; // one per head where each head has its own tables
    Buffer<T> query, key, value, grad, phi_query, phi_key, turned, factor, scores, pairs, grad_phi, row;
    Buffer<T> grad_query, grad_key, grad_value, head_value, states;

    BackwardScratch(const Problem &p, int heads) : sizes(p) {
        const int states_ = heads * (p.heads / p.kv_heads);
        for (int i = 0; i < (p.decay == DecayKind::head ? states_ : 1); ++i) decays.emplace_back(p, sizes.chunk_);
        const Sizes<T> &z = sizes;
        const int64_t c = z.chunk_;
        for (Buffer<T> *b : {&query, &key, &grad_query, &grad_key}) b->resize(z.dim_ * c);
        for (Buffer<T> *b : {&value, &grad, &turned, &grad_value, &head_value}) b->resize(c * z.columns_);
        if (p.taylor)
            for (Buffer<T> *b : {&phi_query, &phi_key}) b->resize(z.features_ * c);
        factor.resize(z.features_ * c);
        grad_phi.resize(z.features_ * c);
        scores.resize(c * c);
        pairs.resize(c * c);
        row.resize(c);
        states.resize(z.state() * states_);
    }

    Decay<T> &decay(int i) { return decays[decays.size() == 1 ? 0 : i]; }
};

// grad[i][column]: gradient of the sums of token i, from the gradient of its output.
template <class S, class T>
void load_grad(const Problem &p, const Sizes<T> &z, const Sequence &s, int64_t token, int head, int count, T *grad, T *out) {
    constexpr int N = Lanes<T>::N;
    load_rows<S, T>(p.grad_out, s.batch, token, head, count, p.value_dim, z.columns_, grad);
    if (!p.normalize) {
        if (p.scale != 1.0)
            for (int i = 0; i < count * z.columns_; i += N) at(grad + i) *= T(p.scale);
        return;
    }
    load_rows<S, T>(p.out, s.batch, token, head, count, p.value_dim, z.columns_, out);
    const T *denominator = static_cast<const T *>(p.denominator) + (s.batch * p.tokens + token) * p.heads + head;
    for (int i = 0; i < count; ++i) {
        T *g = grad + i * z.columns_;
        const T share = T(1) / denominator[int64_t(i) * p.heads];
        T along = 0;
        for (int l = 0; l < p.value_dim; ++l) along += g[l] * out[i * z.columns_ + l];
        for (int l = 0; l < z.columns_; l += N) at(g + l) *= share * T(p.scale);
        g[p.value_dim] = -along * share;
    }
}

// One head of the walk to the right: grad_query. `decay_row` is that of the chunk's first token.
template <class T>
void grad_query_chunk(const Problem &p, BackwardScratch<T> &x, int count, Decay<T> &decay, const T *state, T *decay_row) {
    const Sizes<T> &z = x.sizes;
    constexpr int N = Lanes<T>::N;
    const int c = z.chunk_, tokens = padded<T>(count);
    const bool taylor = p.taylor, decays = p.decay != DecayKind::none, needs_rows = p.grad_decay != nullptr;
    turn<T>(x.grad, z.columns_, tokens, z.columns_, x.turned, c);
    const T *kept = decay.tokens_across(count), *since = decay.since;
    T *pairs = x.pairs, *scores = x.scores, *row = x.row, *grad = x.grad_query, *grad_phi = x.grad_phi;
    const auto from_row = [=](int inner) {
        return [=](int r, int lane, int width) { return Range{0, lane + width > r ? inner : 0}; };
    };
    if (needs_rows) std::memset(row, 0, size_t(tokens) * sizeof(T));
    if (p.taylor) {
        multiply<T, Left::columns, 1>(tokens, tokens, x.key, c, x.query, c, x.ahead, from_row(z.dim),
                                   [=](int j, int i, Vec<T> sum) { at(scores + j * c + i) = sum; });
        multiply<T, Left::rows, 1>(tokens, tokens, x.value, z.columns_, x.turned, c, x.ahead, from_row(z.columns), [=](int j, int i, Vec<T> sum) {
            const Vec<T> k = at(kept + j * c + i), u = at(scores + j * c + i);
            const Vec<T> pair = k > 0 ? sum * k : Vec<T>{};
            if (needs_rows) at(row + i) += k > 0 ? pair * weight<T>(true, u) : Vec<T>{};
            at(pairs + j * c + i) = k > 0 ? pair * (u + T(1)) : Vec<T>{};
        });
    } else {
        multiply<T, Left::rows, 1>(tokens, tokens, x.value, z.columns_, x.turned, c, x.ahead, from_row(z.columns), [=](int j, int i, Vec<T> sum) {
            const Vec<T> k = at(kept + j * c + i);
            at(pairs + j * c + i) = k > 0 ? sum * k : Vec<T>{};
        });
    }
    multiply<T, Left::rows>(z.features, tokens, state, z.columns_, x.turned, c, x.ahead, Dense{z.columns}, [=](int f, int i, Vec<T> sum) {
        at(grad_phi + f * c + i) = decays ? sum * at(since + i) : sum;
    });
    multiply<T, Left::rows, 1>(
        z.dim, tokens, x.key, c, pairs, c, x.ahead, [=](int, int lane, int width) { return Range{0, std::min(lane + width, count)}; },
        [=](int d, int i, Vec<T> sum) { at(grad + d * c + i) = taylor ? sum : sum + at(grad_phi + d * c + i); });
    if (p.taylor) {
        taylor_backward<T>(x.query, grad_phi, z.dim, tokens, c, grad);
        if (needs_rows) taylor_features<T>(x.query, z.dim, tokens, c, x.phi_query);
    }
    if (needs_rows) {
        const T *a = p.taylor ? x.phi_query : x.query, *b = p.taylor ? grad_phi : grad;
        for (int i = 0; i < tokens; i += N) {
            Vec<T> sum = at(row + i);
            for (int f = 0; f < z.features; ++f) sum += at(a + f * c + i) * at(b + f * c + i);
            for (int l = 0; l < N && i + l < count; ++l) decay_row[int64_t(i + l) * p.heads] = sum[l];
        }
    }
}

template <class S, class T>
void grad_query_heads(const Problem &p, BackwardScratch<T> &x, const Part &part, int64_t token, int kv_head, T *states, bool carry) {
    const Sequence &s = p.sequences[part.sequence];
    const Sizes<T> &z = x.sizes;
    const int group = p.heads / p.kv_heads, count = int(std::min<int64_t>(p.chunk, s.stop - token));
    const bool needs_query = p.taylor || p.grad_decay;
    const T *phi = load_keys<S, T>(p, x, s, token, kv_head, count);
    const Next next = next_of(p, part, token, kv_head, count, token + count, s.stop - token - count);
    for (int g = 0; g < group; ++g) {
        const int head = kv_head * group + g;
        T *state = states + g * z.state();
        const bool same = g + 1 < group;
        const Next row = same ? Next{token, 0, count} : next;
        const int next_head = same ? head + 1 : next.kv_head * group;
        x.ahead.clear();
        if (!same) {
            expect<S>(x.ahead, p.key, s.batch, next.token, next.kv_head, next.count, z.dim);
            expect<S>(x.ahead, p.value, s.batch, next.token, next.kv_head, next.count, p.value_dim);
        }
        expect<S>(x.ahead, p.grad_out, s.batch, row.token, next_head, row.count, p.value_dim);
        expect<S>(x.ahead, p.grad_query, s.batch, row.token, next_head, row.count, z.dim);
        if (needs_query) expect<S>(x.ahead, p.query, s.batch, row.token, next_head, row.count, z.dim);
        Decay<T> &decay = x.decay(head - part.first * group);
        decay.set(p, s, token, head, count);
        if (needs_query) load_lanes<S, T>(p.query, s.batch, token, head, count, z.dim, z.chunk_, x.query);
        load_grad<S, T>(p, z, s, token, head, count, x.grad, x.head_value);
        grad_query_chunk<T>(p, x, count, decay, state, per_token<T>(p, p.decay_rows, s, token, head));
        store_lanes<S, T>(p.grad_query, s.batch, token, head, count, z.dim, z.chunk_, x.grad_query);
        if (carry) add_keys<T>(x, decay, decay.whole, phi, count, state);
    }
}

template <class S, class T> void walk_right(const Problem &p, BackwardScratch<T> &x, const Part &part) {
    const Sequence &s = p.sequences[part.sequence];
    const int group = p.heads / p.kv_heads;
    const int64_t size = x.sizes.state();
    load_states<T>(p, x.sizes, p.initial_state, part, x.states);
    for (int64_t token = s.start; token < s.stop; token += p.chunk)
        for (int kv_head = part.first; kv_head < part.last; ++kv_head)
            grad_query_heads<S, T>(p, x, part, token, kv_head, x.states + (kv_head - part.first) * group * size, token + p.chunk < s.stop);
}

// One head of the walk to the left: adds to grad_key and grad_value of its key head.
template <class T>
void grad_key_chunk(const Problem &p, BackwardScratch<T> &x, int count, Decay<T> &decay, const T *phi_key, const T *pull, T *decay_column) {
    const Sizes<T> &z = x.sizes;
    constexpr int N = Lanes<T>::N;
    const int c = z.chunk_, e = z.columns_, tokens = padded<T>(count);
    const bool taylor = p.taylor, decays = p.decay != DecayKind::none;
    const T *kept = decay.tokens_down(count), *until = decay.until;
    T *pairs = x.pairs, *scores = x.scores, *grad = x.grad_key, *value = x.head_value, *grad_phi = x.grad_phi;
    const auto to_row = [=](int inner) {
        return [=](int r, int lane, int) { return Range{0, lane < r + TILE_ROWS ? inner : 0}; };
    };
    multiply<T, Left::columns, 1>(tokens, tokens, x.query, c, x.key, c, x.ahead, to_row(z.dim), [=](int i, int j, Vec<T> sum) { at(scores + i * c + j) = sum; });
    multiply<T, Left::rows, 1>(tokens, tokens, x.grad, e, x.turned, c, x.ahead, to_row(z.columns), [=](int i, int j, Vec<T> sum) {
        const Vec<T> k = at(kept + i * c + j), u = at(scores + i * c + j);
        at(pairs + i * c + j) = k > 0 ? (taylor ? sum * k * (u + T(1)) : sum * k) : Vec<T>{};
        at(scores + i * c + j) = k > 0 ? weight<T>(taylor, u) * k : Vec<T>{};
    });
    multiply<T, Left::rows>(z.features, tokens, pull, e, x.turned, c, x.ahead, Dense{z.columns}, [=](int f, int j, Vec<T> sum) {
        sum = decays ? sum * at(until + j) : sum;
        if (taylor) at(grad_phi + f * c + j) = sum;
        else at(grad + f * c + j) += sum;
    });
    multiply<T, Left::rows, 1>(
        z.dim, tokens, x.query, c, pairs, c, x.ahead, [=](int, int lane, int) { return Range{lane, count}; },
        [=](int d, int j, Vec<T> sum) { at(grad + d * c + j) += sum; });
    if (taylor) taylor_backward<T>(x.key, grad_phi, z.dim, tokens, c, grad);
    multiply<T, Left::columns>(tokens, e, phi_key, c, pull, e, x.ahead, Dense{z.features},
                               [=](int j, int l, Vec<T> sum) { at(value + j * e + l) = decays ? until[j] * sum : sum; });
    multiply<T, Left::columns>(
        tokens, e, scores, c, x.grad, e, x.ahead, [=](int row, int, int) { return Range{row, count}; },
        [=](int j, int l, Vec<T> sum) { at(value + j * e + l) += sum; });
    for (int j = 0; j < count; ++j) {
        Vec<T> along{};
        for (int l = 0; l < e; l += N) {
            along += at(x.value + j * e + l) * at(value + j * e + l);
            at(x.grad_value + j * e + l) += at(value + j * e + l);
        }
        if (!p.grad_decay) continue;
        T sum = 0;
        for (int l = 0; l < N; ++l) sum += along[l];
        decay_column[int64_t(j) * p.heads] = sum;
    }
}

// What a chunk adds to the gradient of the state before it, and what it leaves of the gradient of the state after it.
template <class T>
void add_queries(const Problem &p, BackwardScratch<T> &x, Decay<T> &decay, T whole, int count, T *pull) {
    const Sizes<T> &z = x.sizes;
    const int tokens = padded<T>(count);
    const T *queries = x.query;
    if (p.taylor) {
        taylor_features<T>(x.query, z.dim, tokens, z.chunk_, x.phi_query);
        queries = x.phi_query;
    }
    queries = scaled<T>(decay, queries, z.features, tokens, z.chunk_, decay.since, x.factor);
    advance<T>(z, x.ahead, whole, queries, x.grad, count, pull);
}

// The same for every head of a part's first key head, each alone.
template <class S, class T>
void pulls_of_queries(const Problem &p, BackwardScratch<T> &x, const Part &part, int64_t token, T *pulls, T *whole) {
    const Sequence &s = p.sequences[part.sequence];
    const Sizes<T> &z = x.sizes;
    const int group = p.heads / p.kv_heads, count = int(std::min<int64_t>(p.chunk, s.stop - token));
    x.ahead.clear();
    for (int g = 0; g < group; ++g) {
        const int head = part.first * group + g;
        Decay<T> &decay = x.decay(g);
        decay.set(p, s, token, head, count);
        load_lanes<S, T>(p.query, s.batch, token, head, count, z.dim, z.chunk_, x.query);
        load_grad<S, T>(p, z, s, token, head, count, x.grad, x.head_value);
        add_queries<T>(p, x, decay, T(0), count, pulls + g * z.state());
        whole[g] = decay.whole;
    }
}

template <class S, class T>
void grad_key_heads(const Problem &p, BackwardScratch<T> &x, const Part &part, int64_t token, int kv_head, T *pulls, bool carry) {
    const Sequence &s = p.sequences[part.sequence];
    const Sizes<T> &z = x.sizes;
    const int group = p.heads / p.kv_heads, c = z.chunk_;
    const int count = int(std::min<int64_t>(p.chunk, s.stop - token)), tokens = padded<T>(count);
    const T *phi = load_keys<S, T>(p, x, s, token, kv_head, count);
    turn<T>(x.value, z.columns_, tokens, z.columns_, x.turned, c);
    std::memset(x.grad_key, 0, size_t(z.dim_) * c * sizeof(T));
    std::memset(x.grad_value, 0, size_t(tokens) * z.columns_ * sizeof(T));
    const Next next = next_of(p, part, token, kv_head, count, token - p.chunk, token - s.start);
    for (int g = 0; g < group; ++g) {
        const int head = kv_head * group + g;
        T *pull = pulls + g * z.state();
        const bool same = g + 1 < group;
        const Next row = same ? Next{token, 0, count} : next;
        const int next_head = same ? head + 1 : next.kv_head * group;
        x.ahead.clear();
        if (!same) {
            expect<S>(x.ahead, p.key, s.batch, next.token, next.kv_head, next.count, z.dim);
            expect<S>(x.ahead, p.value, s.batch, next.token, next.kv_head, next.count, p.value_dim);
        }
        expect<S>(x.ahead, p.query, s.batch, row.token, next_head, row.count, z.dim);
        expect<S>(x.ahead, p.grad_out, s.batch, row.token, next_head, row.count, p.value_dim);
        if (!same) {
            expect<S>(x.ahead, p.grad_key, s.batch, next.token, next.kv_head, next.count, z.dim);
            expect<S>(x.ahead, p.grad_value, s.batch, next.token, next.kv_head, next.count, p.value_dim);
        }
        Decay<T> &decay = x.decay(head - part.first * group);
        decay.set(p, s, token, head, count);
        load_lanes<S, T>(p.query, s.batch, token, head, count, z.dim, c, x.query);
        load_grad<S, T>(p, z, s, token, head, count, x.grad, x.head_value);
        grad_key_chunk<T>(p, x, count, decay, phi, pull, per_token<T>(p, p.decay_columns, s, token, head));
        if (carry) add_queries<T>(p, x, decay, decay.whole, count, pull);
    }
    store_lanes<S, T>(p.grad_key, s.batch, token, kv_head, count, z.dim, c, x.grad_key);
    store_rows<S, T>(p.grad_value, s.batch, token, kv_head, count, p.value_dim, z.columns_, x.grad_value);
}

template <class S, class T> void walk_left(const Problem &p, BackwardScratch<T> &x, const Part &part) {
    const Sequence &s = p.sequences[part.sequence];
    const int group = p.heads / p.kv_heads;
    const int64_t size = x.sizes.state();
    load_states<T>(p, x.sizes, p.grad_final, part, x.states);
    for (int64_t chunk = chunks_of(p, s) - 1; chunk >= 0; --chunk)
        for (int kv_head = part.first; kv_head < part.last; ++kv_head)
            grad_key_heads<S, T>(p, x, part, s.start + chunk * p.chunk, kv_head, x.states + (kv_head - part.first) * group * size,
                                 chunk > 0 || p.grad_initial);
    store_states<T>(p, x.sizes, x.states, part, p.grad_initial);
}

// Sums from each token to the end of its sequence, in double. A token that forgets everything has no gradient.
template <class T> void grad_decay_of(const Problem &p, int64_t number, int head) {
    const Sequence &s = p.sequences[number];
    const T *rows = static_cast<const T *>(p.decay_rows), *columns = static_cast<const T *>(p.decay_columns);
    const T *log_decay = static_cast<const T *>(p.log_decay);
    double sum = p.decay_tail ? double(static_cast<const T *>(p.decay_tail)[number * p.heads + head]) : 0.0;
    for (int64_t token = s.stop - 1; token >= s.start; --token) {
        const int64_t at = (s.batch * p.tokens + token) * p.heads + head;
        sum += double(rows[at]) - double(columns[at]);
        const T g = log_decay[p.decay == DecayKind::head ? head : at];
        static_cast<T *>(p.grad_decay)[at] = g == -std::numeric_limits<T>::infinity() ? T(0) : T(sum);
    }
}

template <class S> void backward_as(const Problem &p) {
    using T = typename ComputeOf<S>::T;
    const int heads = heads_at_once<T>(p);
    const int64_t parts = p.count * ((p.kv_heads + heads - 1) / heads);
    const auto scratch = [&] { return BackwardScratch<T>(p, heads); };
    // The two walks do not depend on each other: either may come first, or both at once.
    if (few(p, 2 * parts)) {
        for (int64_t i = 0; i < parts; ++i) {
            const Part part = part_of(p, heads, i);
            over_chunks<T>(
                p, part, Direction::right, p.initial_state, nullptr, scratch,
                [&](BackwardScratch<T> &x, int64_t token, T *states, T *whole) { states_of_keys<S, T>(p, x, part, token, states, whole); },
                [&](BackwardScratch<T> &x, int64_t token, T *states) { grad_query_heads<S, T>(p, x, part, token, part.first, states, false); });
            over_chunks<T>(
                p, part, Direction::left, p.grad_final, p.grad_initial, scratch,
                [&](BackwardScratch<T> &x, int64_t token, T *pulls, T *whole) { pulls_of_queries<S, T>(p, x, part, token, pulls, whole); },
                [&](BackwardScratch<T> &x, int64_t token, T *pulls) { grad_key_heads<S, T>(p, x, part, token, part.first, pulls, false); });
        }
    } else {
        parallel(2 * parts, grain_of(p, heads, 2), p.threads, scratch, [&](BackwardScratch<T> &x, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const Part part = part_of(p, heads, i % parts);
                if (i < parts) walk_left<S, T>(p, x, part);
                else walk_right<S, T>(p, x, part);
            }
        });
    }
    if (!p.grad_decay) return;
    parallel(
        p.count * p.heads, std::max<int64_t>(1, 100000 / std::max<int64_t>(1, p.tokens)), p.threads, [] { return 0; },
        [&](int, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) grad_decay_of<T>(p, i / p.heads, int(i % p.heads));
        });
}

} // namespace recurrence
} // namespace WINDEYE_ISA
} // namespace windeye
