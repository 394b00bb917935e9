// A chunk of tokens in working memory: unpacked, zero-padded, most matrices with tokens across the lanes.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "buffer.h"
#include "recurrence_problem.h"
#include "tiles.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace recurrence {

using namespace tiles;

using windeye::recurrence::DecayKind;
using windeye::recurrence::Part;
using windeye::recurrence::Problem;
using windeye::recurrence::Sequence;
using windeye::recurrence::Tensor;
using windeye::recurrence::Type;

// Sizes of all matrices; a name with _ is padded to whole vectors.
template <class T> struct Sizes {
    int dim, dim_, columns, columns_, features, features_, chunk_;
    Sizes(const Problem &p)
        : dim(p.head_dim), dim_(padded<T>(dim)), columns(p.columns()), columns_(padded<T>(columns)),
          features(p.features()), features_(padded<T>(features)), chunk_(padded<T>(p.chunk)) {}
    int64_t state() const { return int64_t(features_) * columns_; }
};

template <class S> inline S *row_of(const Tensor &x, int64_t batch, int64_t token, int64_t head) {
    return reinterpret_cast<S *>(x.data) + batch * x.batch + token * x.token + head * x.head;
}

// Up to N neighbouring numbers of a row as one vector, zeros behind them; and back.
template <class S, class T> inline Vec<T> read(const S *from, int64_t stride, int count) {
    constexpr int N = Lanes<T>::N;
    if (stride == 1 && count >= N) {
        if constexpr (std::is_same_v<S, T>) {
            Vec<T> x;
            std::memcpy(&x, from, sizeof(x));
            return x;
        }
#if defined(__AVX512F__)
        if constexpr (std::is_same_v<S, bfloat16>)
            return (Vec<T>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16);
        if constexpr (std::is_same_v<S, float16>) return (Vec<T>)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#endif
    }
    Vec<T> x{};
    const int n = count < N ? count : N;
    for (int i = 0; i < n; ++i) x[i] = load(from[i * stride]);
    return x;
}

template <class S, class T> inline void write(S *to, int64_t stride, int count, Vec<T> x) {
    constexpr int N = Lanes<T>::N;
    if constexpr (std::is_same_v<S, T>)
        if (stride == 1 && count >= N) {
            std::memcpy(to, &x, sizeof(x));
            return;
        }
    const int n = count < N ? count : N;
    for (int i = 0; i < n; ++i) to[i * stride] = store<S>(x[i]);
}

// rows[token][dim] of `count` tokens; zeros in the padding.
template <class S, class T>
void load_rows(const Tensor &x, int64_t batch, int64_t token, int64_t head, int count, int dim, int width, T *rows) {
    constexpr int N = Lanes<T>::N;
    for (int i = 0; i < count; ++i) {
        const S *from = row_of<const S>(x, batch, token + i, head);
        for (int d = 0; d < width; d += N) at(rows + i * width + d) = d < dim ? read<S, T>(from + d * x.dim, x.dim, dim - d) : Vec<T>{};
    }
    for (int i = count; i < padded<T>(count); ++i)
        for (int d = 0; d < width; d += N) at(rows + i * width + d) = Vec<T>{};
}

template <class S, class T>
void store_rows(const Tensor &x, int64_t batch, int64_t token, int64_t head, int count, int dim, int width, const T *rows) {
    constexpr int N = Lanes<T>::N;
    for (int i = 0; i < count; ++i) {
        S *to = row_of<S>(x, batch, token + i, head);
        for (int d = 0; d < dim; d += N) write<S, T>(to + d * x.dim, x.dim, dim - d, at(rows + i * width + d));
    }
}

// lanes[dim][token], `stride` tokens wide; zeros in the padding.
template <class S, class T>
void load_lanes(const Tensor &x, int64_t batch, int64_t token, int64_t head, int count, int dim, int stride, T *lanes) {
    constexpr int N = Lanes<T>::N;
    for (int i = 0; i < count; i += N)
        for (int d = 0; d < padded<T>(dim); d += N) {
            Vec<T> block[N];
            for (int r = 0; r < N; ++r)
                block[r] = i + r < count ? read<S, T>(row_of<const S>(x, batch, token + i + r, head) + d * x.dim, x.dim, dim - d) : Vec<T>{};
            transpose(block);
            for (int r = 0; r < N; ++r) at(lanes + (d + r) * stride + i) = block[r];
        }
}

template <class S, class T>
void store_lanes(const Tensor &x, int64_t batch, int64_t token, int64_t head, int count, int dim, int stride, const T *lanes) {
    constexpr int N = Lanes<T>::N;
    for (int i = 0; i < count; i += N)
        for (int d = 0; d < dim; d += N) {
            Vec<T> block[N];
            for (int r = 0; r < N; ++r) block[r] = at(lanes + (d + r) * stride + i);
            transpose(block);
            for (int r = 0; r < N && i + r < count; ++r)
                write<S, T>(row_of<S>(x, batch, token + i + r, head) + d * x.dim, x.dim, dim - d, block[r]);
        }
}

// phi(x) of the second-order Taylor map, lanes are tokens: 1, x, x^2 / sqrt 2, then x_i x_j for i > j row by row.
template <class T> void taylor_features(const T *x, int dim, int count, int stride, T *phi) {
    constexpr int N = Lanes<T>::N;
    const T half = T(std::sqrt(0.5));
    for (int l = 0; l < count; l += N) {
        T *to = phi + l;
        at(to) = splat<T>(1);
        for (int i = 0; i < dim; ++i) {
            const Vec<T> xi = at(x + i * stride + l);
            at(to + (1 + i) * stride) = xi;
            at(to + (1 + dim + i) * stride) = xi * xi * half;
        }
        to += (1 + 2 * dim) * stride;
        for (int i = 1; i < dim; ++i)
            for (int j = 0; j < i; ++j, to += stride) at(to) = at(x + i * stride + l) * at(x + j * stride + l);
    }
}

// grad[dim][lane] += (d phi / d x)^T grad_phi.
template <class T> void taylor_backward(const T *x, const T *grad_phi, int dim, int count, int stride, T *grad) {
    constexpr int N = Lanes<T>::N;
    const T root = T(std::sqrt(2.0));
    for (int l = 0; l < count; l += N) {
        const T *from = grad_phi + (1 + 2 * dim) * stride + l;
        for (int i = 0; i < dim; ++i) {
            const Vec<T> xi = at(x + i * stride + l);
            Vec<T> sum = at(grad + i * stride + l) + at(grad_phi + (1 + i) * stride + l) + root * xi * at(grad_phi + (1 + dim + i) * stride + l);
            for (int j = 0; j < i; ++j, from += stride) {
                const Vec<T> g = at(from);
                sum += g * at(x + j * stride + l);
                at(grad + j * stride + l) += g * xi;
            }
            at(grad + i * stride + l) = sum;
        }
    }
}

// The decay inside a chunk of one head. Only products of numbers in [0, 1] are formed: nothing overflows, and a token
// that forgets everything is a zero factor.
template <class T> struct Decay {
    DecayKind kind;
    int size; // of a full chunk, padded
    int prepared = -1;
    T whole = 1;              // over the whole chunk
    Buffer<T> since, until;   // [token]: from before the chunk up to the token; from the token to the end of the chunk
    Buffer<T> forward, back;  // kept[i][j] from token j to a later token i, zero elsewhere; its transpose
    Buffer<T> step;

    Decay(const Problem &p, int chunk) : kind(p.decay), size(chunk) {
        since.resize(size);
        until.resize(size);
        forward.resize(int64_t(size) * size);
        back.resize(int64_t(size) * size);
        step.resize(size + 1);
        if (kind == DecayKind::none) {
            step[0] = 1;
            for (int t = 1; t <= size; ++t) step[t] = 1;
            fill();
        }
    }

    // Before a chunk of a head with one decay for all tokens: its tables are kept for the next chunk.
    void start(const Problem &p, int64_t head) {
        if (kind != DecayKind::head || prepared == head) return;
        const double g = static_cast<const T *>(p.log_decay)[head];
        step[0] = 1;
        for (int t = 1; t <= size; ++t) step[t] = T(std::exp(g * t));
        fill();
        prepared = int(head);
    }

    void set(const Problem &p, const Sequence &s, int64_t token, int64_t head, int count) {
        if (kind == DecayKind::none) return;
        start(p, head);
        if (kind == DecayKind::head) {
            for (int i = 0; i < count; ++i) {
                since[i] = step[i + 1];
                until[i] = step[count - 1 - i];
            }
            for (int i = count; i < padded<T>(count); ++i) since[i] = until[i] = 0;
            whole = step[count];
            return;
        }
        constexpr int N = Lanes<T>::N;
        const T *g = static_cast<const T *>(p.log_decay) + (s.batch * p.tokens + token) * p.heads + head;
        const int end = padded<T>(count);
        double sum = 0;
        for (int i = 0; i < count; ++i) {
            step[i] = g[i * p.heads];
            sum += double(step[i]);
            since[i] = T(sum);
        }
        whole = T(std::exp(sum));
        sum = 0;
        for (int i = count - 1; i >= 0; --i) {
            until[i] = T(sum);
            sum += double(step[i]);
        }
        for (int i = count; i < end; ++i) step[i] = since[i] = until[i] = -std::numeric_limits<T>::infinity();
        // Steps are multiplied with each other, so each is rounded correctly; the other two are factors used once.
        for (int i = 0; i < end; ++i) step[i] = std::exp(step[i]);
        for (T *x : {since.data, until.data})
            for (int i = 0; i < end; i += N) {
                const Vec<T> factor = exp2(at(x + i) * Lanes<T>::log2e);
                at(x + i) = factor > T(1) ? splat<T>(1) : factor;
            }
    }

    // kept[i][j], tokens down: row i is row i - 1 times the step of token i.
    const T *tokens_down(int count) {
        if (kind != DecayKind::token) return forward;
        constexpr int N = Lanes<T>::N;
        const int end = padded<T>(count);
        for (int j = 0; j < end; j += N) at(forward + j) = Vec<T>{};
        forward[0] = 1;
        for (int i = 1; i < end; ++i) {
            for (int j = 0; j < end; j += N) at(forward + i * size + j) = step[i] * at(forward + (i - 1) * size + j);
            forward[i * size + i] = 1;
        }
        return forward;
    }

    // kept[i][j] with i across: row j is row j + 1 times the step of token j + 1.
    const T *tokens_across(int count) {
        if (kind != DecayKind::token) return back;
        constexpr int N = Lanes<T>::N;
        const int end = padded<T>(count);
        for (int i = 0; i < end; i += N) at(back + (end - 1) * size + i) = Vec<T>{};
        back[(end - 1) * size + end - 1] = 1;
        for (int j = end - 2; j >= 0; --j) {
            for (int i = 0; i < end; i += N) at(back + j * size + i) = step[j + 1] * at(back + (j + 1) * size + i);
            back[j * size + j] = 1;
        }
        return back;
    }

  private:
    void fill() {
        for (int i = 0; i < size; ++i)
            for (int j = 0; j < size; ++j) {
                forward[i * size + j] = i >= j ? step[i - j] : T(0);
                back[j * size + i] = forward[i * size + j];
            }
    }
};

// to[row][token] = rows[row][token] * factor[token]; the same memory where there is no decay.
template <class T> const T *scaled(const Decay<T> &decay, const T *rows, int count, int tokens, int stride, const T *factor, T *to) {
    if (decay.kind == DecayKind::none) return rows;
    constexpr int N = Lanes<T>::N;
    for (int r = 0; r < count; ++r)
        for (int i = 0; i < tokens; i += N) at(to + r * stride + i) = at(rows + r * stride + i) * at(factor + i);
    return to;
}

// Key heads that one task takes: as many as leave every thread a task and keep their states in the second cache.
template <class T> int heads_at_once(const Problem &p) {
    const int64_t tasks = std::max<int64_t>(1, p.count * p.kv_heads / std::max(1, p.threads));
    const int64_t states = (int64_t(1) << 18) / std::max<int64_t>(1, Sizes<T>(p).state() * int64_t(sizeof(T)) * (p.heads / p.kv_heads));
    return int(std::max<int64_t>(1, std::min<int64_t>({tasks, states, p.kv_heads})));
}

// The part with a number, of all parts of all sequences.
inline Part part_of(const Problem &p, int heads, int64_t number) {
    const int64_t parts = (p.kv_heads + heads - 1) / heads;
    const int first = int(number % parts) * heads;
    return {number / parts, first, std::min(first + heads, p.kv_heads)};
}

// The key head of a chunk that a task comes to next; no tokens after the last one.
struct Next {
    int64_t token;
    int kv_head, count;
};

inline Next next_of(const Problem &p, const Part &part, int64_t token, int kv_head, int count, int64_t after, int64_t left) {
    if (kv_head + 1 < part.last) return {token, kv_head + 1, count};
    return {after, part.first, int(std::max<int64_t>(0, std::min<int64_t>(p.chunk, left)))};
}

// Asks for the rows of a chunk of one head that follows.
template <class S> void expect(Ahead &ahead, const Tensor &x, int64_t batch, int64_t token, int64_t head, int count, int dim) {
    if (x.dim == 1 && count > 0) ahead.add(row_of<S>(x, batch, token, head), x.token * int64_t(sizeof(S)), dim * int64_t(sizeof(S)), count);
}

// state = whole state + sum_i x[feature][i] y[i][column]. A chunk that forgets everything clears even NaN.
template <class T> inline void advance(const Sizes<T> &z, Ahead &ahead, T whole, const T *x, const T *y, int count, T *state) {
    if (whole == T(0))
        multiply<T, Left::rows>(z.features, z.columns_, x, z.chunk_, y, z.columns_, ahead, Dense{count},
                                [=](int r, int l, Vec<T> sum) { at(state + r * z.columns_ + l) = sum; });
    else
        multiply<T, Left::rows>(z.features, z.columns_, x, z.chunk_, y, z.columns_, ahead, Dense{count},
                                [=](int r, int l, Vec<T> sum) { at(state + r * z.columns_ + l) = whole * at(state + r * z.columns_ + l) + sum; });
}

// States of all heads of a part, unpacked to padded rows; zeros where there are none. And back.
template <class T> void load_states(const Problem &p, const Sizes<T> &z, const void *from, const Part &part, T *states) {
    const int group = p.heads / p.kv_heads, heads = (part.last - part.first) * group;
    std::memset(states, 0, size_t(z.state()) * heads * sizeof(T));
    if (!from) return;
    const T *x = static_cast<const T *>(from) + (part.sequence * p.heads + part.first * group) * z.features * z.columns;
    for (int h = 0; h < heads; ++h)
        for (int f = 0; f < z.features; ++f, x += z.columns)
            std::memcpy(states + h * z.state() + f * z.columns_, x, size_t(z.columns) * sizeof(T));
}

template <class T> void store_states(const Problem &p, const Sizes<T> &z, const T *states, const Part &part, void *to) {
    if (!to) return;
    const int group = p.heads / p.kv_heads, heads = (part.last - part.first) * group;
    T *x = static_cast<T *>(to) + (part.sequence * p.heads + part.first * group) * z.features * z.columns;
    for (int h = 0; h < heads; ++h)
        for (int f = 0; f < z.features; ++f, x += z.columns)
            std::memcpy(x, states + h * z.state() + f * z.columns_, size_t(z.columns) * sizeof(T));
}

// Place of a token in a tensor [batch, tokens, heads] that may be missing.
template <class T> T *per_token(const Problem &p, void *x, const Sequence &s, int64_t token, int head) {
    return x ? static_cast<T *>(x) + (s.batch * p.tokens + token) * p.heads + head : nullptr;
}

} // namespace recurrence
} // namespace WINDEYE_ISA
} // namespace windeye
