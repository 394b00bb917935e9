// Statistics of attention: one call as raw pointers with element strides.
#pragma once

#include "problem.h"

namespace windeye {
namespace statistics {

constexpr int MOST_TOP = 32; // keys that are ranked in each row

struct Problem {
    Type type = Type::float32;
    int32_t batch = 0, heads = 0, kv_heads = 0, head_dim = 0, queries = 0, keys = 0;
    double scale = 1.0, softcap = 0.0; // no cap: 0
    int32_t offset = 0;                // position of the first query among the keys
    int threads = 1;

    Tensor query, key;

    // Query q sees the keys start[b][r][q] <= s < stop[b][r][q] of every run: disjoint, ascending, empty where stop <= start.
    const int32_t *start = nullptr, *stop = nullptr; // [run_batch, runs, queries], contiguous
    int32_t run_batch = 1, runs = 1;

    // From here on numbers are float, or double for inputs of double; everything is contiguous unless strides are given.
    const void *sink = nullptr; // [heads], or null
    const void *bias = nullptr; // added to every logit of a key, [.., .., keys], or null
    int64_t bias_batch = 0, bias_head = 0;

    void *lse = nullptr; // [batch, queries, heads]; the row pass writes it, the column pass reads it

    int64_t run_row(int32_t b) const { return run_batch == 1 ? 0 : int64_t(b) * runs * queries; }
};

// What is summed over the keys of a row. Null where it is not asked for.
struct Rows {
    void *mass = nullptr, *entropy = nullptr, *squares = nullptr, *distance = nullptr; // [batch, queries, heads]

    const void *features = nullptr; // of each key: [.., keys, feature_count]
    int64_t feature_batch = 0;
    int32_t feature_count = 0;
    void *feature_sums = nullptr; // [batch, queries, heads, feature_count]

    const void *tables = nullptr; // of each distance: [table_count, distances]; the first entry is distance `first`,
    int32_t table_count = 0, distances = 0, first = 0; // beyond either end the end's entry holds
    void *table_sums = nullptr;                        // [batch, queries, heads, table_count]

    int32_t top = 0;             // how many of the largest weights, at most MOST_TOP
    void *top_weight = nullptr;  // [batch, queries, heads, top]; descending
    int32_t *top_key = nullptr;  // same layout; -1 where a row sees fewer keys
};

// What is summed over the queries of a column: weights of pairs with low <= distance <= high, times `weight` of the query.
struct Columns {
    const void *weight = nullptr; // [weight_batch, queries], or null: all 1
    int64_t weight_batch = 0;
    int64_t low = 0, high = 0;
    void *sums = nullptr; // [batch, keys, heads]
};

// A loss pulls at the logits of the pairs by
//   A (constant + entropy log A + squares A + distance |t - s| + sum_c features[c] feature[c][s] + sum_f tables[f] table[f][t - s])
// where A is the weight, the factors are the row's, and features and tables are those of `Rows`.
struct Gradients {
    const void *constant = nullptr;                                         // [batch, queries, heads]
    const void *entropy = nullptr, *squares = nullptr, *distance = nullptr; // same layout; null: 0
    const void *features = nullptr, *tables = nullptr; // [batch, queries, heads, feature_count or table_count]
    Tensor query, key;                                 // the results
};

struct Kernels {
    const char *name;
    void (*rows)(const Problem &, const Rows &);
    void (*columns)(const Problem &, const Columns &);
    void (*backward)(const Problem &, const Rows &, const Gradients &);
};

} // namespace statistics
} // namespace windeye
