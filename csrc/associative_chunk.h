// One piece of one row in working memory, and the forward pass over it.
//
// Tokens lie across the lanes, features are rows: weights are then always the left factor of a product, either way
// round, and are never transposed. Only the small matrices of a piece are turned, for the updates of the weights.
#pragma once

#include <cstring>
#include <memory>

#include "associative_activation.h"
#include "buffer.h"
#include "threads.h"
#include "tiles.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace associative {

using namespace tiles;
using windeye::associative::MOST_LAYERS;
using windeye::associative::Problem;

// Names with _ are padded to whole vectors. Matrix l, from 1, maps width l - 1 to width l.
template <class T> struct Sizes {
    int layers, tokens, tokens_, table, width[MOST_LAYERS + 1], width_[MOST_LAYERS + 1];
    int64_t numbers;
    explicit Sizes(const Problem &p)
        : layers(p.layers), tokens(p.tokens), tokens_(padded<T>(p.tokens)), table(padded<T>(2 + tokens_)), numbers(p.numbers()) {
        for (int l = 0; l <= layers; ++l) width[l] = p.widths[l], width_[l] = padded<T>(width[l]);
    }
    int64_t lanes(int l) const { return int64_t(width_[l]) * tokens_; }
    int64_t matrix(int l) const { return int64_t(width_[l - 1]) * width_[l]; }
};

// The matrices of all layers of one row.
template <class T> struct Matrices {
    Buffer<T> layer[MOST_LAYERS + 1];

    explicit Matrices(const Sizes<T> &z) {
        for (int l = 1; l <= z.layers; ++l) layer[l].resize(z.matrix(l));
    }
    T *operator[](int l) const { return layer[l].data; }

    void load(const Sizes<T> &z, const T *from) {
        for (int l = 1; l <= z.layers; ++l)
            for (int i = 0; i < z.width[l - 1]; ++i, from += z.width[l]) std::memcpy(layer[l] + int64_t(i) * z.width_[l], from, sizeof(T) * z.width[l]);
    }
    void store(const Sizes<T> &z, T *to) const {
        for (int l = 1; l <= z.layers; ++l)
            for (int i = 0; i < z.width[l - 1]; ++i, to += z.width[l]) std::memcpy(to, layer[l] + int64_t(i) * z.width_[l], sizeof(T) * z.width[l]);
    }
    void copy(const Sizes<T> &z, const Matrices &from) {
        for (int l = 1; l <= z.layers; ++l) std::memcpy(layer[l], from[l], sizeof(T) * z.matrix(l));
    }
};

// x[width][token] of every layer.
template <class T> struct Layers {
    Buffer<T> layer[MOST_LAYERS + 1];
    Layers(const Sizes<T> &z, int first, int last) {
        for (int l = first; l <= last; ++l) layer[l].resize(z.lanes(l));
    }
    T *operator[](int l) const { return layer[l].data; }
};

// What each row of weights is made of, token by token: column 0 the weights before the piece, column 1 the momentum,
// then the gradients. `weights` has it of the weights after row - 1, `surges` of the momentum.
template <class T> struct Table {
    Buffer<T> weights, surges, mask, kept, carried; // mask[key][query], turned
    const T *keep, *momentum, *step;
    int live;

    explicit Table(const Sizes<T> &z) {
        weights.resize(int64_t(z.tokens_ + 1) * z.table);
        surges.resize(int64_t(z.tokens_ + 1) * z.table);
        mask.resize(int64_t(z.tokens_) * z.tokens_);
        kept.resize(z.tokens_);
        carried.resize(z.tokens_);
    }

    // Tokens that are not live change nothing.
    void fill(const Sizes<T> &z, const Problem &p, int64_t at_row) {
        constexpr int N = Lanes<T>::N;
        keep = static_cast<const T *>(p.keep) + at_row * z.tokens;
        momentum = static_cast<const T *>(p.momentum) + at_row * z.tokens;
        step = static_cast<const T *>(p.step) + at_row * z.tokens;
        live = int(p.live[at_row]);
        std::memset(weights, 0, sizeof(T) * z.table);
        std::memset(surges, 0, sizeof(T) * z.table);
        weights[0] = surges[1] = 1;
        for (int i = 0; i < z.tokens; ++i) {
            const T a = i < live ? keep[i] : 1, eta = i < live ? momentum[i] : 1, flow = i < live;
            const T *w0 = weights + int64_t(i) * z.table, *s0 = surges + int64_t(i) * z.table;
            T *w1 = weights + int64_t(i + 1) * z.table, *s1 = surges + int64_t(i + 1) * z.table;
            for (int j = 0; j < z.table; j += N) at(s1 + j) = eta * at(s0 + j);
            if (i < live) s1[2 + i] = step[i];
            for (int j = 0; j < z.table; j += N) at(w1 + j) = a * at(w0 + j) + flow * at(s1 + j);
        }
        for (int i = 0; i < z.tokens; ++i) {
            const T *w = weights + int64_t(i + 1) * z.table;
            kept[i] = w[0], carried[i] = w[1];
            for (int j = 0; j < z.tokens; ++j) mask[int64_t(j) * z.tokens_ + i] = w[2 + j];
        }
    }
    const T *last_weights(const Sizes<T> &z) const { return weights + int64_t(z.tokens) * z.table; }
    const T *last_surges(const Sizes<T> &z) const { return surges + int64_t(z.tokens) * z.table; }
};

// Numbers k that a causal product needs: keys in front of the last query of a tile, or queries behind its first key.
template <class T> struct KeysBefore {
    int tokens;
    Range operator()(int, int lane, int lanes) const { return {0, lane + lanes < tokens ? lane + lanes : tokens}; }
};
template <class T> struct QueriesBehind {
    int tokens;
    Range operator()(int, int lane, int) const { return {lane, tokens}; }
};
// A dense product of which only the tiles with queries behind keys are wanted; rows are keys, lanes queries.
struct Causal {
    int inner;
    Range operator()(int row, int lane, int lanes) const { return {0, row < lane + lanes ? inner : 0}; }
};

// to[dim][token] of tokens [token][dim] in front of it, and back.
template <class T> void load_tokens(const Sizes<T> &z, const T *from, int dim, int dim_, T *rows, T *lanes) {
    for (int i = 0; i < z.tokens; ++i) {
        T *row = rows + int64_t(i) * dim_;
        std::memcpy(row, from + int64_t(i) * dim, sizeof(T) * dim);
        for (int d = dim; d < dim_; ++d) row[d] = 0;
    }
    std::memset(rows + int64_t(z.tokens) * dim_, 0, sizeof(T) * (z.tokens_ - z.tokens) * dim_);
    turn(rows, dim_, z.tokens_, dim_, lanes, z.tokens_);
}
template <class T> void store_tokens(const Sizes<T> &z, const T *lanes, int dim, int dim_, T *rows, T *to) {
    turn(lanes, z.tokens_, dim_, z.tokens_, rows, dim_);
    for (int i = 0; i < z.tokens; ++i) std::memcpy(to + int64_t(i) * dim, rows + int64_t(i) * dim_, sizeof(T) * dim);
}

template <class T> struct Chunk {
    const Problem &p;
    Sizes<T> z;
    Ahead ahead;
    Matrices<T> anchor, weights, surge;
    Table<T> table;
    Layers<T> inputs, before, grads, rows_of_grads, reads, read_before; // rows_of_grads[token][width]
    Buffer<T> scores, rows, scaled;

    explicit Chunk(const Problem &problem)
        : p(problem), z(problem), anchor(z), weights(z), surge(z), table(z), inputs(z, 0, z.layers - 1), before(z, 1, z.layers),
          grads(z, 1, z.layers), rows_of_grads(z, 1, z.layers), reads(z, 0, z.layers - 1), read_before(z, 1, z.layers) {
        scores.resize(int64_t(z.tokens_) * z.tokens_);
        int64_t most = 0;
        for (int l = 0; l <= z.layers; ++l) most = z.lanes(l) > most ? z.lanes(l) : most;
        rows.resize(most);
        scaled.resize(most);
    }

    // Offset of a piece of a row in [pieces, rows, tokens, dim].
    int64_t tokens_at(int64_t piece, int64_t row, int dim) const { return (piece * p.rows + row) * z.tokens * dim; }

    // Gradients of every token's loss at the anchor.
    void write(int64_t piece, int64_t row) {
        const int L = z.layers, M = z.tokens_;
        load_tokens(z, static_cast<const T *>(p.key) + tokens_at(piece, row, z.width[0]), z.width[0], z.width_[0], rows.data, inputs[0]);
        for (int l = 1; l <= L; ++l)
            multiply<T, Left::columns>(z.width[l], M, anchor[l], z.width_[l], inputs[l - 1], M, ahead, Dense{z.width[l - 1]},
                                       [&](int r, int i, Vec<T> sum) {
                                           at(before[l] + r * M + i) = sum;
                                           if (l < L) at(inputs[l] + r * M + i) = activated<T>(p.activation, sum).value;
                                       });
        load_tokens(z, static_cast<const T *>(p.value) + tokens_at(piece, row, z.width[L]), z.width[L], z.width_[L], rows.data, grads[L]);
        const T factor = T(p.factor);
        for (int64_t i = 0; i < z.lanes(L); i += Lanes<T>::N) at(grads[L] + i) = factor * (at(before[L] + i) - at(grads[L] + i));
        for (int l = L - 1; l >= 1; --l)
            multiply<T, Left::rows>(z.width[l], M, anchor[l + 1], z.width_[l + 1], grads[l + 1], M, ahead, Dense{z.width[l + 1]},
                                    [&](int r, int i, Vec<T> sum) {
                                        at(grads[l] + r * M + i) = sum * activated<T>(p.activation, at(before[l] + r * M + i)).slope;
                                    });
        for (int l = 1; l <= L; ++l) turn(grads[l], M, z.width_[l], M, rows_of_grads[l], z.width_[l]);
    }

    // scores[key][query] of one layer without the mask, given to `take`; where keys lie behind all queries of a tile
    // nothing is given.
    template <class Take> void each_score(int l, Take take) {
        multiply<T, Left::columns>(z.tokens, z.tokens_, inputs[l - 1], z.tokens_, reads[l - 1], z.tokens_, ahead, Causal{z.width[l - 1]}, take);
    }

    // Every query through the weights after its own token.
    void read(int64_t piece, int64_t row) {
        const int L = z.layers, M = z.tokens_;
        load_tokens(z, static_cast<const T *>(p.query) + tokens_at(piece, row, z.width[0]), z.width[0], z.width_[0], rows.data, reads[0]);
        for (int l = 1; l <= L; ++l) {
            T *to = read_before[l];
            std::memset(scores, 0, sizeof(T) * M * M);
            each_score(l, [&](int j, int i, Vec<T> sum) { at(scores + j * M + i) = sum * at(table.mask + j * M + i); });
            multiply<T, Left::columns>(z.width[l], M, weights[l], z.width_[l], reads[l - 1], M, ahead, Dense{z.width[l - 1]},
                                       [&](int r, int i, Vec<T> sum) { at(to + r * M + i) = sum * at(table.kept + i); });
            multiply<T, Left::columns>(z.width[l], M, surge[l], z.width_[l], reads[l - 1], M, ahead, Dense{z.width[l - 1]},
                                       [&](int r, int i, Vec<T> sum) { at(to + r * M + i) += sum * at(table.carried + i); });
            multiply<T, Left::rows>(z.width[l], M, grads[l], M, scores, M, ahead, KeysBefore<T>{z.tokens},
                                    [&](int r, int i, Vec<T> sum) {
                                        const Vec<T> x = at(to + r * M + i) - sum;
                                        at(to + r * M + i) = x;
                                        if (l < L) at(reads[l] + r * M + i) = activated<T>(p.activation, x).value;
                                    });
        }
    }

    // scaled[token][width] = factors[token] rows_of_grads[token][width]
    void scale_rows(int l, const T *factors) {
        const int W = z.width_[l];
        for (int j = 0; j < z.tokens; ++j)
            for (int d = 0; d < W; d += Lanes<T>::N) at(scaled + j * W + d) = factors[j] * at(rows_of_grads[l] + j * W + d);
    }

    // Weights and momentum after the last token.
    void update() {
        const T *w = table.last_weights(z), *s = table.last_surges(z);
        const T kept = w[0], carried = w[1], slowed = s[1];
        for (int l = 1; l <= z.layers; ++l) {
            const int W = z.width_[l];
            scale_rows(l, w + 2);
            multiply<T, Left::rows>(z.width[l - 1], W, inputs[l - 1], z.tokens_, scaled, W, ahead, Dense{z.tokens}, [&](int r, int d, Vec<T> sum) {
                at(weights[l] + r * W + d) = kept * at(weights[l] + r * W + d) + carried * at(surge[l] + r * W + d) - sum;
            });
            scale_rows(l, s + 2);
            multiply<T, Left::rows>(z.width[l - 1], W, inputs[l - 1], z.tokens_, scaled, W, ahead, Dense{z.tokens}, [&](int r, int d, Vec<T> sum) {
                at(surge[l] + r * W + d) = slowed * at(surge[l] + r * W + d) - sum;
            });
        }
    }
};

template <class T> void forward_as(const Problem &p) {
    parallel(p.rows, 1, p.threads, [&] { return std::make_unique<Chunk<T>>(p); }, [&](std::unique_ptr<Chunk<T>> &scratch, int64_t begin, int64_t end) {
        Chunk<T> &x = *scratch;
        const int64_t numbers = x.z.numbers;
        const int L = x.z.layers;
        for (int64_t row = begin; row < end; ++row) {
            x.anchor.load(x.z, static_cast<const T *>(p.anchor) + row * numbers);
            x.weights.load(x.z, static_cast<const T *>(p.weights) + row * numbers);
            x.surge.load(x.z, static_cast<const T *>(p.surge) + row * numbers);
            for (int64_t piece = 0; piece < p.pieces; ++piece) {
                const int64_t place = piece * p.rows + row;
                if (p.saved) {
                    T *to = static_cast<T *>(p.saved) + place * 2 * numbers;
                    x.weights.store(x.z, to);
                    x.surge.store(x.z, to + numbers);
                }
                x.table.fill(x.z, p, place);
                x.write(piece, row);
                x.read(piece, row);
                store_tokens(x.z, x.read_before[L], x.z.width[L], x.z.width_[L], x.rows.data, static_cast<T *>(p.out) + x.tokens_at(piece, row, x.z.width[L]));
                x.update();
                if (p.completes[place]) x.anchor.copy(x.z, x.weights);
            }
            x.anchor.store(x.z, static_cast<T *>(p.anchor_after) + row * numbers);
            x.weights.store(x.z, static_cast<T *>(p.weights_after) + row * numbers);
            x.surge.store(x.z, static_cast<T *>(p.surge_after) + row * numbers);
        }
    });
}

} // namespace associative
} // namespace WINDEYE_ISA
} // namespace windeye
