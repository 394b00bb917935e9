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

template <class S, class T> void walk_right(const Problem &p, BackwardScratch<T> &x, const Part &part) {
    const Sequence &s = p.sequences[part.sequence];
    const Sizes<T> &z = x.sizes;
    const int group = p.heads / p.kv_heads, first = part.first * group, last = part.last * group;
    const bool needs_query = p.taylor || p.grad_decay;
    for (int head = first; head < last; ++head)
        load_state<T>(z, p.initial_state, part.sequence * p.heads + head, x.states + (head - first) * z.state());
    for (int64_t token = s.start; token < s.stop; token += p.chunk) {
        const int count = int(std::min<int64_t>(p.chunk, s.stop - token));
        for (int kv_head = part.first; kv_head < part.last; ++kv_head) {
            load_lanes<S, T>(p.key, s.batch, token, kv_head, count, z.dim, z.chunk_, x.key);
            load_value<S, T>(p, z, s, token, kv_head, count, x.value);
            const T *phi = x.key;
            if (p.taylor) {
                taylor_features<T>(x.key, z.dim, padded<T>(count), z.chunk_, x.phi_key);
                phi = x.phi_key;
            }
            const Next next = next_of(p, part, token, kv_head, count, token + count, s.stop - token - count);
            for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
                T *state = x.states + (head - first) * z.state();
                const bool same = head + 1 < (kv_head + 1) * group;
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
                Decay<T> &decay = x.decay(head - first);
                decay.set(p, s, token, head, count);
                if (needs_query) load_lanes<S, T>(p.query, s.batch, token, head, count, z.dim, z.chunk_, x.query);
                load_grad<S, T>(p, z, s, token, head, count, x.grad, x.head_value);
                grad_query_chunk<T>(p, x, count, decay, state, static_cast<T *>(p.decay_rows) + (s.batch * p.tokens + token) * p.heads + head);
                store_lanes<S, T>(p.grad_query, s.batch, token, head, count, z.dim, z.chunk_, x.grad_query);
                if (token + count == s.stop) continue;
                const T *keys = scaled<T>(decay, phi, z.features, padded<T>(count), z.chunk_, decay.until, x.factor);
                advance<T>(z, x.ahead, decay.whole, keys, x.value, count, state);
            }
        }
    }
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

template <class S, class T> void walk_left(const Problem &p, BackwardScratch<T> &x, const Part &part) {
    const Sequence &s = p.sequences[part.sequence];
    const Sizes<T> &z = x.sizes;
    const int group = p.heads / p.kv_heads, first = part.first * group, last = part.last * group, c = z.chunk_;
    for (int head = first; head < last; ++head)
        load_state<T>(z, p.grad_final, part.sequence * p.heads + head, x.states + (head - first) * z.state());
    for (int64_t i = (s.stop - s.start + p.chunk - 1) / p.chunk - 1; i >= 0; --i) {
        const int64_t token = s.start + i * p.chunk;
        const int count = int(std::min<int64_t>(p.chunk, s.stop - token)), tokens = padded<T>(count);
        for (int kv_head = part.first; kv_head < part.last; ++kv_head) {
            load_lanes<S, T>(p.key, s.batch, token, kv_head, count, z.dim, c, x.key);
            load_value<S, T>(p, z, s, token, kv_head, count, x.value);
            turn<T>(x.value, z.columns_, tokens, z.columns_, x.turned, c);
            const T *phi = x.key;
            if (p.taylor) {
                taylor_features<T>(x.key, z.dim, tokens, c, x.phi_key);
                phi = x.phi_key;
            }
            std::memset(x.grad_key, 0, size_t(z.dim_) * c * sizeof(T));
            std::memset(x.grad_value, 0, size_t(tokens) * z.columns_ * sizeof(T));
            const Next next = next_of(p, part, token, kv_head, count, token - p.chunk, i * p.chunk);
            for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
                T *pull = x.states + (head - first) * z.state();
                const bool same = head + 1 < (kv_head + 1) * group;
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
                Decay<T> &decay = x.decay(head - first);
                decay.set(p, s, token, head, count);
                load_lanes<S, T>(p.query, s.batch, token, head, count, z.dim, c, x.query);
                load_grad<S, T>(p, z, s, token, head, count, x.grad, x.head_value);
                grad_key_chunk<T>(p, x, count, decay, phi, pull, static_cast<T *>(p.decay_columns) + (s.batch * p.tokens + token) * p.heads + head);
                if (i == 0 && !p.grad_initial) continue;
                const T *queries = x.query;
                if (p.taylor) {
                    taylor_features<T>(x.query, z.dim, tokens, c, x.phi_query);
                    queries = x.phi_query;
                }
                queries = scaled<T>(decay, queries, z.features, tokens, c, decay.since, x.factor);
                advance<T>(z, x.ahead, decay.whole, queries, x.grad, count, pull);
            }
            store_lanes<S, T>(p.grad_key, s.batch, token, kv_head, count, z.dim, c, x.grad_key);
            store_rows<S, T>(p.grad_value, s.batch, token, kv_head, count, p.value_dim, z.columns_, x.grad_value);
        }
    }
    for (int head = first; head < last; ++head)
        store_state<T>(z, x.states + (head - first) * z.state(), part.sequence * p.heads + head, p.grad_initial);
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
    // The two walks do not depend on each other: either may come first, or both at once.
    parallel(
        2 * parts, grain_of(p, heads, 2), p.threads, [&] { return BackwardScratch<T>(p, heads); },
        [&](BackwardScratch<T> &scratch, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const Part part = part_of(p, heads, i % parts);
                if (i < parts) walk_left<S, T>(p, scratch, part);
                else walk_right<S, T>(p, scratch, part);
            }
        });
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
