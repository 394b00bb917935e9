// Forward pass: one walk over the chunks of a head, a state between them.
//
//   scores[j][i] = weight(<q_i, k_j>) kept[i][j]                          inside the chunk, tokens i across the lanes
//   out[i]       = scale (sum_j scores[j][i] v_j + since_i phi(q_i) state)
//   state        = whole state + sum_j until_j phi(k_j) v_j^T
#pragma once

#include "recurrence_chunk.h"
#include "recurrence_split.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace recurrence {

template <class T> struct ForwardScratch {
    Sizes<T> sizes;
    Ahead ahead;
    std::vector<Decay<T>> decays; // one per head where each head has its own tables
    Buffer<T> query, key, value, phi_query, phi_key, factor, scores, out, states;

    ForwardScratch(const Problem &p, int heads) : sizes(p) {
        const int states_ = heads * (p.heads / p.kv_heads);
        for (int i = 0; i < (p.decay == DecayKind::head ? states_ : 1); ++i) decays.emplace_back(p, sizes.chunk_);
        const Sizes<T> &z = sizes;
        const int64_t c = z.chunk_;
        query.resize(z.dim_ * c);
        key.resize(z.dim_ * c);
        value.resize(c * z.columns_);
        if (p.taylor) {
            phi_query.resize(z.features_ * c);
            phi_key.resize(z.features_ * c);
        }
        factor.resize(z.features_ * c);
        scores.resize(c * c);
        out.resize(c * z.columns_);
        states.resize(z.state() * states_);
    }

    Decay<T> &decay(int i) { return decays[decays.size() == 1 ? 0 : i]; }
};

template <class T> inline Vec<T> weight(bool taylor, Vec<T> u) { return taylor ? T(1) + u + T(0.5) * u * u : u; }

template <class S, class T> void load_value(const Problem &p, const Sizes<T> &z, const Sequence &s, int64_t token, int kv_head, int count, T *value) {
    load_rows<S, T>(p.value, s.batch, token, kv_head, count, p.value_dim, z.columns_, value);
    if (p.normalize)
        for (int i = 0; i < count; ++i) value[i * z.columns_ + p.value_dim] = 1;
}

// `denominator` is that of the chunk's first token.
template <class T>
void forward_chunk(const Problem &p, ForwardScratch<T> &x, int count, Decay<T> &decay, const T *state, T *denominator) {
    const Sizes<T> &z = x.sizes;
    constexpr int N = Lanes<T>::N;
    const int c = z.chunk_, e = z.columns_, tokens = padded<T>(count);
    const T *phi = x.query;
    if (p.taylor) {
        taylor_features<T>(x.query, z.dim, tokens, c, x.phi_query);
        phi = x.phi_query;
    }
    const T *kept = decay.tokens_across(count);
    T *scores = x.scores, *out = x.out;
    const bool taylor = p.taylor, decays = p.decay != DecayKind::none;
    multiply<T, Left::columns, 1>(
        tokens, tokens, x.key, c, x.query, c,
        x.ahead, [=](int row, int lane, int width) { return Range{0, lane + width > row ? z.dim : 0}; },
        [=](int j, int i, Vec<T> sum) {
            const Vec<T> k = at(kept + j * c + i);
            at(scores + j * c + i) = k > 0 ? weight<T>(taylor, sum) * k : Vec<T>{};
        });
    const T *since = decay.since;
    multiply<T, Left::columns>(tokens, e, phi, c, state, e, x.ahead, Dense{z.features}, [=](int i, int l, Vec<T> sum) {
        at(out + i * e + l) = decays ? since[i] * sum : sum;
    });
    multiply<T, Left::columns>(
        tokens, e, scores, c, x.value, e, x.ahead, [=](int row, int, int) { return Range{0, std::min(row + TILE_ROWS, count)}; },
        [=](int i, int l, Vec<T> sum) { at(out + i * e + l) += sum; });
    for (int i = 0; i < count; ++i) {
        T factor = T(p.scale);
        if (p.normalize) {
            const T d = out[i * e + p.value_dim] + T(p.epsilon);
            denominator[int64_t(i) * p.heads] = d;
            factor /= d;
        }
        for (int l = 0; l < e; l += N) at(out + i * e + l) *= factor;
    }
}

// A chunk of keys and values as the walks to the right need them; the features of its keys.
template <class S, class T, class Scratch>
const T *load_keys(const Problem &p, Scratch &x, const Sequence &s, int64_t token, int kv_head, int count) {
    const Sizes<T> &z = x.sizes;
    load_lanes<S, T>(p.key, s.batch, token, kv_head, count, z.dim, z.chunk_, x.key);
    load_value<S, T>(p, z, s, token, kv_head, count, x.value);
    if (!p.taylor) return x.key;
    taylor_features<T>(x.key, z.dim, padded<T>(count), z.chunk_, x.phi_key);
    return x.phi_key;
}

// What a chunk adds to a state, and what it leaves of the state before it.
template <class T, class Scratch>
void add_keys(Scratch &x, Decay<T> &decay, T whole, const T *phi, int count, T *state) {
    const Sizes<T> &z = x.sizes;
    const T *keys = scaled<T>(decay, phi, z.features, padded<T>(count), z.chunk_, decay.until, x.factor);
    advance<T>(z, x.ahead, whole, keys, x.value, count, state);
}

// The same for every head of a part's first key head, each alone.
template <class S, class T, class Scratch>
void states_of_keys(const Problem &p, Scratch &x, const Part &part, int64_t token, T *states, T *whole) {
    const Sequence &s = p.sequences[part.sequence];
    const int group = p.heads / p.kv_heads, count = int(std::min<int64_t>(p.chunk, s.stop - token));
    const T *phi = load_keys<S, T>(p, x, s, token, part.first, count);
    x.ahead.clear();
    for (int g = 0; g < group; ++g) {
        Decay<T> &decay = x.decay(g);
        decay.set(p, s, token, part.first * group + g, count);
        add_keys<T>(x, decay, T(0), phi, count, states + g * x.sizes.state());
        whole[g] = decay.whole;
    }
}

// Outputs of one chunk for the heads of a key head. `states` of these heads are carried over the chunk if asked for.
template <class S, class T>
void forward_heads(const Problem &p, ForwardScratch<T> &x, const Part &part, int64_t token, int kv_head, T *states, bool carry) {
    const Sequence &s = p.sequences[part.sequence];
    const Sizes<T> &z = x.sizes;
    const int group = p.heads / p.kv_heads, count = int(std::min<int64_t>(p.chunk, s.stop - token));
    const T *phi = load_keys<S, T>(p, x, s, token, kv_head, count);
    const Next next = next_of(p, part, token, kv_head, count, token + count, s.stop - token - count);
    for (int g = 0; g < group; ++g) {
        const int head = kv_head * group + g;
        T *state = states + g * z.state();
        x.ahead.clear();
        if (g + 1 < group) {
            expect<S>(x.ahead, p.query, s.batch, token, head + 1, count, z.dim);
            expect<S>(x.ahead, p.out, s.batch, token, head + 1, count, p.value_dim);
        } else {
            expect<S>(x.ahead, p.key, s.batch, next.token, next.kv_head, next.count, z.dim);
            expect<S>(x.ahead, p.value, s.batch, next.token, next.kv_head, next.count, p.value_dim);
            expect<S>(x.ahead, p.query, s.batch, next.token, next.kv_head * group, next.count, z.dim);
            expect<S>(x.ahead, p.out, s.batch, next.token, next.kv_head * group, next.count, p.value_dim);
        }
        Decay<T> &decay = x.decay(head - part.first * group);
        decay.set(p, s, token, head, count);
        load_lanes<S, T>(p.query, s.batch, token, head, count, z.dim, z.chunk_, x.query);
        forward_chunk<T>(p, x, count, decay, state, per_token<T>(p, p.denominator, s, token, head));
        store_rows<S, T>(p.out, s.batch, token, head, count, p.value_dim, z.columns_, x.out);
        if (carry) add_keys<T>(x, decay, decay.whole, phi, count, state);
    }
}

template <class S, class T> void forward_part(const Problem &p, ForwardScratch<T> &x, const Part &part) {
    const Sequence &s = p.sequences[part.sequence];
    const int group = p.heads / p.kv_heads;
    const int64_t size = x.sizes.state();
    load_states<T>(p, x.sizes, p.initial_state, part, x.states);
    for (int64_t token = s.start; token < s.stop; token += p.chunk)
        for (int kv_head = part.first; kv_head < part.last; ++kv_head)
            forward_heads<S, T>(p, x, part, token, kv_head, x.states + (kv_head - part.first) * group * size, token + p.chunk < s.stop || p.final_state);
    store_states<T>(p, x.sizes, x.states, part, p.final_state);
}

// Tasks below which another thread costs more than it brings: about two million multiply-adds.
inline int64_t grain_of(const Problem &p, int heads, int units) {
    int64_t tokens = 0;
    for (int64_t i = 0; i < p.count; ++i) tokens += p.sequences[i].stop - p.sequences[i].start;
    const int64_t each = int64_t(p.chunk) * (p.head_dim + p.columns()) + 2 * p.state_size();
    const int64_t task = units * each * tokens / std::max<int64_t>(1, p.count) * (p.heads / p.kv_heads) * heads;
    return std::max<int64_t>(1, 2000000 / std::max<int64_t>(1, task));
}

template <class S> void forward_as(const Problem &p) {
    using T = typename ComputeOf<S>::T;
    const int heads = heads_at_once<T>(p);
    const int64_t parts = p.count * ((p.kv_heads + heads - 1) / heads);
    const auto scratch = [&] { return ForwardScratch<T>(p, heads); };
    if (few(p, parts)) {
        for (int64_t i = 0; i < parts; ++i) {
            const Part part = part_of(p, heads, i);
            over_chunks<T>(
                p, part, Direction::right, p.initial_state, p.final_state, scratch,
                [&](ForwardScratch<T> &x, int64_t token, T *states, T *whole) { states_of_keys<S, T>(p, x, part, token, states, whole); },
                [&](ForwardScratch<T> &x, int64_t token, T *states) { forward_heads<S, T>(p, x, part, token, part.first, states, false); });
        }
        return;
    }
    parallel(parts, grain_of(p, heads, 1), p.threads, scratch, [&](ForwardScratch<T> &x, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) forward_part<S, T>(p, x, part_of(p, heads, i));
    });
}

} // namespace recurrence
} // namespace WINDEYE_ISA
} // namespace windeye
