// One call of the associative memory: contiguous arrays as raw pointers. No torch header, so one build serves every torch.
#pragma once

#include <cstdint>

namespace windeye {
namespace associative {

enum class Activation : int { gelu = 0, silu = 1, relu = 2, tanh = 3 };

constexpr int MOST_LAYERS = 8;

// T is float or double. `rows` are heads of sequences, each with weights of its own; a piece holds up to `tokens` tokens
// of each row that lie in one chunk, real ones in front. Matrices of all layers of a row lie one after the other.
struct Problem {
    bool wide = false; // double
    Activation activation = Activation::gelu;
    int layers = 0, widths[MOST_LAYERS + 1] = {};
    int64_t pieces = 0, rows = 0;
    int tokens = 0;
    double factor = 1.0;

    const void *query = nullptr, *key = nullptr, *value = nullptr; // T [pieces, rows, tokens, dim]
    const void *keep = nullptr, *momentum = nullptr, *step = nullptr; // T [pieces, rows, tokens]
    const int64_t *live = nullptr; // [pieces, rows], real tokens of each
    const uint8_t *completes = nullptr; // [pieces, rows], whether the chunk ends with this piece
    const void *anchor = nullptr, *weights = nullptr, *surge = nullptr; // T [rows, numbers]: before the first piece

    void *out = nullptr; // T [pieces, rows, tokens, value_dim]
    void *anchor_after = nullptr, *weights_after = nullptr, *surge_after = nullptr;
    void *saved = nullptr; // T [pieces, rows, 2, numbers]: weights and momentum before each piece, for the backward pass

    const void *grad_out = nullptr, *grad_anchor_after = nullptr, *grad_weights_after = nullptr, *grad_surge_after = nullptr;
    void *grad_query = nullptr, *grad_key = nullptr, *grad_value = nullptr;
    void *grad_keep = nullptr, *grad_momentum = nullptr, *grad_step = nullptr;
    void *grad_anchor = nullptr, *grad_weights = nullptr, *grad_surge = nullptr;

    int threads = 1;

    int64_t numbers() const {
        int64_t sum = 0;
        for (int l = 0; l < layers; ++l) sum += int64_t(widths[l]) * widths[l + 1];
        return sum;
    }
};

// What each instruction set provides.
struct Kernels {
    const char *name;
    void (*forward)(const Problem &);
    void (*backward)(const Problem &);
};

} // namespace associative
} // namespace windeye
