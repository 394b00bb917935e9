// Backward pass: pieces from the last to the first. The forward pass of each is computed again from the weights it began
// with; then its three parts are walked back in reverse order: update, read, write.
#pragma once

#include <tuple>
#include <utility>

#include "associative_chunk.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace associative {

template <class T> struct ChunkGradients {
    using V = Vec<T>;
    static constexpr int N = Lanes<T>::N;

    Chunk<T> x;
    const Sizes<T> &z;
    const Problem &p;
    const int L, M;
    Matrices<T> to_anchor, to_weights, to_surge, next_weights, next_surge;
    Layers<T> to_inputs, to_grads, from_weights, from_surge;
    Buffer<T> to_read, next_read, by_kept, by_carried, flipped, unmasked, to_scores, to_mask, to_kept, to_carried, to_last_mask, to_last;
    T to_last_kept, to_last_carried, to_slowed;

    explicit ChunkGradients(const Problem &problem)
        : x(problem), z(x.z), p(problem), L(z.layers), M(z.tokens_), to_anchor(z), to_weights(z), to_surge(z), next_weights(z),
          next_surge(z), to_inputs(z, 0, L), to_grads(z, 1, L), from_weights(z, 1, L), from_surge(z, 1, L) {
        for (Buffer<T> *b : {&to_read, &next_read, &by_kept, &by_carried, &flipped}) b->resize(most());
        for (Buffer<T> *b : {&unmasked, &to_scores, &to_mask}) b->resize(int64_t(M) * M);
        for (Buffer<T> *b : {&to_kept, &to_carried, &to_last_mask, &to_last}) b->resize(M);
    }

    int64_t most() const {
        int64_t found = int64_t(M) * M;
        for (int l = 0; l <= L; ++l) found = z.lanes(l) > found ? z.lanes(l) : found;
        return found;
    }

    void clear() {
        for (int l = 0; l <= L; ++l) std::memset(to_inputs[l], 0, sizeof(T) * z.lanes(l));
        for (int l = 1; l <= L; ++l) std::memset(to_grads[l], 0, sizeof(T) * z.lanes(l));
        std::memset(to_mask, 0, sizeof(T) * M * M);
        for (Buffer<T> *b : {&to_kept, &to_carried, &to_last_mask, &to_last}) std::memset(b->data, 0, sizeof(T) * M);
        to_last_kept = to_last_carried = to_slowed = 0;
    }

    static T sum_of(V v) {
        T sum = 0;
        for (int i = 0; i < N; ++i) sum += v[i];
        return sum;
    }

    // `x` at the beginning of the piece, with everything that the parts below read.
    void again(int64_t piece, int64_t row) {
        x.write(piece, row);
        x.read(piece, row);
        for (int l = 1; l <= L; ++l)
            for (auto [matrix, to] : {std::pair{x.weights[l], from_weights[l]}, std::pair{x.surge[l], from_surge[l]}}) {
                T *product = to;
                multiply<T, Left::columns>(z.width[l], M, matrix, z.width_[l], x.reads[l - 1], M, x.ahead, Dense{z.width[l - 1]},
                                           [&](int r, int i, V sum) { at(product + r * M + i) = sum; });
            }
    }

    // From the gradients of weights and momentum after the piece to those before it, and to what they were made of.
    void back_through_update() {
        const T *w = x.table.last_weights(z), *s = x.table.last_surges(z);
        const T kept = w[0], carried = w[1], slowed = s[1];
        T *factors = flipped; // of the last token, per key across the lanes
        std::memset(factors, 0, sizeof(T) * 2 * M);
        for (int j = 0; j < z.tokens; ++j) factors[j] = w[2 + j], factors[M + j] = s[2 + j];
        for (int l = 1; l <= L; ++l) {
            const int W = z.width_[l];
            for (auto [matrix, factor, to_factor] : {std::tuple{to_weights[l], factors, to_last_mask.data}, std::tuple{to_surge[l], factors + M, to_last.data}}) {
                const T *f = factor;
                T *to_f = to_factor, *times = by_kept;
                multiply<T, Left::columns>(z.width[l], M, matrix, W, x.inputs[l - 1], M, x.ahead, Dense{z.width[l - 1]}, [&](int r, int j, V sum) {
                    at(to_grads[l] + r * M + j) -= at(f + j) * sum;
                    at(to_f + j) -= at(x.grads[l] + r * M + j) * sum;
                });
                for (int r = 0; r < W; ++r)
                    for (int j = 0; j < M; j += N) at(times + r * M + j) = at(f + j) * at(x.grads[l] + r * M + j);
                multiply<T, Left::rows>(z.width[l - 1], M, matrix, W, times, M, x.ahead, Dense{z.width[l]},
                                        [&](int r, int j, V sum) { at(to_inputs[l - 1] + r * M + j) -= sum; });
            }
            V kept_sum{}, carried_sum{}, slowed_sum{};
            for (int64_t i = 0; i < z.matrix(l); i += N) {
                const V to_w = at(to_weights[l] + i), to_s = at(to_surge[l] + i);
                kept_sum += to_w * at(x.weights[l] + i);
                carried_sum += to_w * at(x.surge[l] + i);
                slowed_sum += to_s * at(x.surge[l] + i);
                at(next_weights[l] + i) = kept * to_w;
                at(next_surge[l] + i) = carried * to_w + slowed * to_s;
            }
            to_last_kept += sum_of(kept_sum), to_last_carried += sum_of(carried_sum), to_slowed += sum_of(slowed_sum);
        }
    }

    void back_through_read(int64_t piece, int64_t row) {
        load_tokens(z, static_cast<const T *>(p.grad_out) + x.tokens_at(piece, row, z.width[L]), z.width[L], z.width_[L], x.rows.data, to_read.data);
        for (int l = L; l >= 1; --l) {
            const int W = z.width_[l];
            for (int r = 0; r < W; ++r)
                for (int i = 0; i < M; i += N) {
                    const V to = at(to_read + r * M + i);
                    at(to_kept + i) += to * at(from_weights[l] + r * M + i);
                    at(to_carried + i) += to * at(from_surge[l] + r * M + i);
                    at(by_kept + r * M + i) = to * at(x.table.kept + i);
                    at(by_carried + r * M + i) = to * at(x.table.carried + i);
                }
            T *back = next_read;
            for (auto [matrix, by, next] : {std::tuple{x.weights[l], by_kept.data, next_weights[l]}, std::tuple{x.surge[l], by_carried.data, next_surge[l]}}) {
                const bool first = by == by_kept.data;
                T *to = next;
                multiply<T, Left::rows>(z.width[l - 1], M, matrix, W, by, M, x.ahead, Dense{z.width[l]}, [&](int r, int i, V sum) {
                    at(back + r * M + i) = first ? sum : at(back + r * M + i) + sum;
                });
                turn(by, M, W, M, flipped.data, W);
                multiply<T, Left::rows>(z.width[l - 1], W, x.reads[l - 1], M, flipped, W, x.ahead, Dense{z.tokens},
                                        [&](int r, int d, V sum) { at(to + r * W + d) += sum; });
            }
            back_through_scores(l, back);
            if (l > 1)
                for (int64_t i = 0; i < z.lanes(l - 1); i += N)
                    at(to_read + i) = at(back + i) * activated<T>(p.activation, at(x.read_before[l - 1] + i)).slope;
        }
        store_tokens(z, next_read.data, z.width[0], z.width_[0], x.rows.data, static_cast<T *>(p.grad_query) + x.tokens_at(piece, row, z.width[0]));
    }

    // out -= scores grads, scores[query][key] = mask <query, key>.
    void back_through_scores(int l, T *back) {
        std::memset(x.scores, 0, sizeof(T) * M * M);
        std::memset(unmasked, 0, sizeof(T) * M * M);
        std::memset(to_scores, 0, sizeof(T) * M * M);
        x.each_score(l, [&](int j, int i, V sum) {
            at(unmasked + j * M + i) = sum;
            at(x.scores + j * M + i) = sum * at(x.table.mask + j * M + i);
        });
        multiply<T, Left::columns>(z.tokens, M, x.grads[l], M, to_read, M, x.ahead, Causal{z.width[l]}, [&](int j, int i, V sum) {
            at(to_mask + j * M + i) -= sum * at(unmasked + j * M + i);
            at(to_scores + j * M + i) = -sum * at(x.table.mask + j * M + i);
        });
        multiply<T, Left::rows>(z.width[l - 1], M, x.inputs[l - 1], M, to_scores, M, x.ahead, KeysBefore<T>{z.tokens},
                                [&](int r, int i, V sum) { at(back + r * M + i) += sum; });
        turn(to_scores.data, M, M, M, flipped.data, M);
        multiply<T, Left::rows>(z.width[l - 1], M, x.reads[l - 1], M, flipped, M, x.ahead, QueriesBehind<T>{z.tokens},
                                [&](int r, int j, V sum) { at(to_inputs[l - 1] + r * M + j) += sum; });
        turn(x.scores.data, M, M, M, flipped.data, M);
        multiply<T, Left::rows>(z.width[l], M, to_read, M, flipped, M, x.ahead, QueriesBehind<T>{z.tokens},
                                [&](int r, int j, V sum) { at(to_grads[l] + r * M + j) -= sum; });
    }

    void back_through_write(int64_t piece, int64_t row) {
        // The chain of gradients, from its end; `to_inputs[l]` becomes what reaches the outputs before activation.
        for (int l = 1; l < L; ++l) {
            const int W = z.width_[l + 1];
            T *below = by_kept, *bent = by_carried; // of the product before the slope
            multiply<T, Left::rows>(z.width[l], M, x.anchor[l + 1], W, x.grads[l + 1], M, x.ahead, Dense{z.width[l + 1]}, [&](int r, int i, V sum) {
                const Activated<T> f = activated<T>(p.activation, at(x.before[l] + r * M + i));
                const V to = at(to_grads[l] + r * M + i);
                at(bent + r * M + i) = f.bend * sum * to + f.slope * at(to_inputs[l] + r * M + i);
                at(below + r * M + i) = f.slope * to;
            });
            for (int r = z.width[l]; r < z.width_[l]; ++r) std::memset(below + r * M, 0, sizeof(T) * M), std::memset(bent + r * M, 0, sizeof(T) * M);
            std::memcpy(to_inputs[l], bent, sizeof(T) * z.lanes(l));
            multiply<T, Left::columns>(z.width[l + 1], M, x.anchor[l + 1], W, below, M, x.ahead, Dense{z.width[l]},
                                       [&](int r, int i, V sum) { at(to_grads[l + 1] + r * M + i) += sum; });
            multiply<T, Left::rows>(z.width[l], W, below, M, x.rows_of_grads[l + 1], W, x.ahead, Dense{z.tokens},
                                    [&](int r, int d, V sum) { at(to_anchor[l + 1] + r * W + d) += sum; });
        }
        const T factor = T(p.factor);
        T *last = to_inputs[L];
        for (int64_t i = 0; i < z.lanes(L); i += N) at(last + i) = factor * at(to_grads[L] + i), at(to_grads[L] + i) = -factor * at(to_grads[L] + i);
        store_tokens(z, to_grads[L], z.width[L], z.width_[L], x.rows.data, static_cast<T *>(p.grad_value) + x.tokens_at(piece, row, z.width[L]));
        // The chain of outputs, from its end.
        for (int l = L; l >= 1; --l) {
            const int W = z.width_[l];
            turn(to_inputs[l], M, W, M, flipped.data, W);
            multiply<T, Left::rows>(z.width[l - 1], W, x.inputs[l - 1], M, flipped, W, x.ahead, Dense{z.tokens},
                                    [&](int r, int d, V sum) { at(to_anchor[l] + r * W + d) += sum; });
            multiply<T, Left::rows>(z.width[l - 1], M, x.anchor[l], W, to_inputs[l], M, x.ahead, Dense{z.width[l]}, [&](int r, int i, V sum) {
                if (l > 1) sum *= activated<T>(p.activation, at(x.before[l - 1] + r * M + i)).slope;
                at(to_inputs[l - 1] + r * M + i) += sum;
            });
        }
        store_tokens(z, to_inputs[0], z.width[0], z.width_[0], x.rows.data, static_cast<T *>(p.grad_key) + x.tokens_at(piece, row, z.width[0]));
    }

    // The recurrence of the table, backwards.
    void back_through_table(int64_t place) {
        Buffer<T> weight, surge; // gradients of a row of the table
        weight.resize(z.table);
        surge.resize(z.table);
        surge[1] = to_slowed;
        for (int j = 0; j < z.tokens; ++j) surge[2 + j] = to_last[j];
        T *keep = static_cast<T *>(p.grad_keep) + place * z.tokens, *momentum = static_cast<T *>(p.grad_momentum) + place * z.tokens,
          *step = static_cast<T *>(p.grad_step) + place * z.tokens;
        for (int i = z.tokens - 1; i >= 0; --i) {
            const bool last = i == z.tokens - 1, live = i < x.table.live;
            weight[0] += to_kept[i] + (last ? to_last_kept : 0);
            weight[1] += to_carried[i] + (last ? to_last_carried : 0);
            for (int j = 0; j < z.tokens; ++j) weight[2 + j] += to_mask[int64_t(j) * M + i] + (last ? to_last_mask[j] : 0);
            keep[i] = momentum[i] = step[i] = 0;
            if (!live) continue;
            const T *w = x.table.weights + int64_t(i) * z.table, *s = x.table.surges + int64_t(i) * z.table;
            V kept_sum{}, momentum_sum{};
            for (int j = 0; j < z.table; j += N) at(surge + j) += at(weight + j);
            step[i] = surge[2 + i];
            for (int j = 0; j < z.table; j += N) {
                kept_sum += at(weight + j) * at(w + j);
                momentum_sum += at(surge + j) * at(s + j);
                at(weight + j) *= x.table.keep[i];
                at(surge + j) *= x.table.momentum[i];
            }
            keep[i] = sum_of(kept_sum), momentum[i] = sum_of(momentum_sum);
        }
    }

    void row(int64_t row) {
        const int64_t numbers = z.numbers;
        to_anchor.load(z, static_cast<const T *>(p.grad_anchor_after) + row * numbers);
        to_weights.load(z, static_cast<const T *>(p.grad_weights_after) + row * numbers);
        to_surge.load(z, static_cast<const T *>(p.grad_surge_after) + row * numbers);
        for (int64_t piece = p.pieces - 1; piece >= 0; --piece) {
            const int64_t place = piece * p.rows + row;
            // A chunk that ends here hands its weights to the next one as the anchor.
            if (p.completes[place])
                for (int l = 1; l <= L; ++l)
                    for (int64_t i = 0; i < z.matrix(l); i += N) at(to_weights[l] + i) += at(to_anchor[l] + i), at(to_anchor[l] + i) = V{};
            load_before(piece, row);
            x.table.fill(z, p, place);
            clear();
            again(piece, row);
            back_through_update();
            back_through_read(piece, row);
            back_through_write(piece, row);
            back_through_table(place);
            to_weights.copy(z, next_weights);
            to_surge.copy(z, next_surge);
        }
        to_anchor.store(z, static_cast<T *>(p.grad_anchor) + row * numbers);
        to_weights.store(z, static_cast<T *>(p.grad_weights) + row * numbers);
        to_surge.store(z, static_cast<T *>(p.grad_surge) + row * numbers);
    }

    // What the piece began with. Its anchor is the weights after the last piece that ended a chunk.
    void load_before(int64_t piece, int64_t row) {
        const int64_t numbers = z.numbers;
        const T *saved = static_cast<const T *>(p.saved);
        auto began = [&](int64_t at_piece) { return saved + (at_piece * p.rows + row) * 2 * numbers; };
        x.weights.load(z, began(piece));
        x.surge.load(z, began(piece) + numbers);
        int64_t since = piece;
        while (since > 0 && !p.completes[(since - 1) * p.rows + row]) --since;
        x.anchor.load(z, since > 0 ? began(since) : static_cast<const T *>(p.anchor) + row * numbers);
    }
};

template <class T> void backward_as(const Problem &p) {
    parallel(p.rows, 1, p.threads, [&] { return std::make_unique<ChunkGradients<T>>(p); },
             [&](std::unique_ptr<ChunkGradients<T>> &scratch, int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) scratch->row(row);
             });
}

} // namespace associative
} // namespace WINDEYE_ISA
} // namespace windeye
