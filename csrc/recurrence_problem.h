// One call of linear attention: tensors as raw pointers with element strides. No torch header, so one build serves
// every torch.
#pragma once

#include <cstdint>

namespace windeye {
namespace recurrence {

enum class Type : int { float32 = 0, bfloat16 = 1, float16 = 2, float64 = 3 };
enum class DecayKind : int { none = 0, head = 1, token = 2 };

// [batch, tokens, heads, dim]
struct Tensor {
    char *data = nullptr;
    int64_t batch = 0, token = 0, head = 0, dim = 0; // strides in elements
};

// Tokens [start, stop) of one batch entry; each sequence has its own row of the states.
struct Sequence {
    int64_t batch, start, stop;
};

// Neighbouring key heads of one sequence that one task walks through together, chunk by chunk: tokens hold all heads
// side by side, so a task that takes several reads longer runs of memory and meets each page once.
struct Part {
    int64_t sequence;
    int first, last;
};

// T below is float, or double for float64 tensors.
struct Problem {
    Type type = Type::float32;
    int32_t heads = 0, kv_heads = 0, head_dim = 0, value_dim = 0, chunk = 64;
    int64_t tokens = 0; // per batch entry
    bool taylor = false, normalize = false;
    double scale = 1.0, epsilon = 0.0;
    const Sequence *sequences = nullptr;
    int64_t count = 0; // of sequences

    Tensor query, key, value, out, grad_out, grad_query, grad_key, grad_value;

    DecayKind decay = DecayKind::none;
    const void *log_decay = nullptr; // T [heads] or [batch, tokens, heads]
    void *denominator = nullptr;     // T [batch, tokens, heads], epsilon included

    // T [sequences, heads, features, value columns], each may be missing
    const void *initial_state = nullptr, *grad_final = nullptr;
    void *final_state = nullptr, *grad_initial = nullptr;

    // Gradient of the log-decay: T [batch, tokens, heads] three times, the first two are scratch; `decay_tail` is
    // <final state, its gradient>, T [sequences, heads].
    void *decay_rows = nullptr, *decay_columns = nullptr, *grad_decay = nullptr;
    const void *decay_tail = nullptr;

    int threads = 1;

    int features() const { return taylor ? 1 + head_dim + head_dim * (head_dim + 1) / 2 : head_dim; }
    int columns() const { return value_dim + normalize; }
    int64_t state_size() const { return int64_t(features()) * columns(); }
};

// What each instruction set provides.
struct Kernels {
    const char *name;
    void (*forward)(const Problem &);
    void (*backward)(const Problem &);
};

} // namespace recurrence
} // namespace windeye
