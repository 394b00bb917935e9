// One call: tensors as raw pointers with element strides. No torch header, so one build serves every torch.
#pragma once

#include <cstdint>

#include "relation.h"

namespace windeye {

enum class Type : int { float32 = 0, bfloat16 = 1, float16 = 2, float64 = 3 };

// [batch, axis 0, axis 1, axis 2, heads, dim]
struct Tensor {
    char *data = nullptr;
    int64_t batch = 0, axis[AXES] = {0, 0, 0}, head = 0, dim = 0; // strides in elements
};

// Instead of interval tables: key j is seen by the positions j <= i < expiry[j]. Batch 1 serves every batch entry; the
// heads of the tables divide the query heads.
struct Lifetimes {
    const int32_t *expiry = nullptr; // [batch, heads, keys], contiguous; null where the relation has tables
    int32_t batch = 1, heads = 1;
    const void *bias = nullptr; // added to the logits of each key: [batch, bias_heads, keys], float or double, contiguous
    void *grad_bias = nullptr;  // same layout, zeros
    int32_t bias_heads = 1;
};

struct Problem {
    const Relation *relation = nullptr;
    Type type = Type::float32;
    int32_t batch = 0, heads = 0, kv_heads = 0, head_dim = 0, value_dim = 0;
    double scale = 1.0;

    Tensor query, key, value, out, grad_out, grad_query, grad_key, grad_value;
    void *lse = nullptr;            // [batch, tokens, heads], float or double, contiguous
    const void *grad_lse = nullptr; // same layout
    void *delta = nullptr;          // same layout; scratch of the backward pass

    const uint8_t *key_padding = nullptr; // [batch, key tokens], 1 hides a key

    const void *bias = nullptr; // [heads, offsets...], float or double, contiguous
    void *grad_bias = nullptr;  // [batch, heads, bias_chunks, offsets...]
    int32_t bias_size[AXES] = {1, 1, 1};
    int32_t bias_chunks = 1;

    Lifetimes lifetimes;

    double dropout = 0.0;
    uint32_t dropout_threshold = 0, seed = 0;

    int threads = 1;

    int64_t tokens() const { return int64_t(relation->grid[0]) * relation->grid[1] * relation->grid[2]; }
    int64_t tokens_kv() const { return int64_t(relation->grid_kv[0]) * relation->grid_kv[1] * relation->grid_kv[2]; }
    int64_t bias_entries() const { return int64_t(bias_size[0]) * bias_size[1] * bias_size[2]; }
};

// What each instruction set provides.
struct Kernels {
    const char *name;
    void (*forward)(const Problem &);
    void (*backward)(const Problem &);
};

} // namespace windeye
