// Fewer heads than threads: the chunks of one head in parallel, in two passes with a scan between them.
//
//   what each chunk adds to the state, every chunk alone  ->  scan: the state before each chunk  ->  every chunk alone
//
// A walk adds the same numbers in the same order, so that both ways give the same bits.
#pragma once

#include "recurrence_chunk.h"
#include "threads.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace recurrence {

constexpr int64_t WINDOW = 256; // chunks whose states are held at once: memory does not grow with the tokens

enum class Direction { right, left };

inline int64_t chunks_of(const Problem &p, const Sequence &s) { return (s.stop - s.start + p.chunk - 1) / p.chunk; }

// Whether walks would leave threads without work that have enough of it.
inline bool few(const Problem &p, int64_t tasks) {
    int64_t chunks = 0;
    for (int64_t i = 0; i < p.count; ++i) chunks += chunks_of(p, p.sequences[i]);
    return tasks < p.threads && chunks >= 16 * p.count;
}

// `add(scratch, token, states, whole)` writes what the chunk at `token` adds and which share of the state it keeps, for
// each head of the part's only key head; `use(scratch, token, states)` gets the states that arrive at the chunk.
template <class T, class MakeScratch, class Add, class Use>
void over_chunks(const Problem &p, const Part &part, Direction direction, const void *from, void *to, MakeScratch make_scratch, Add add, Use use) {
    const Sequence &s = p.sequences[part.sequence];
    const Sizes<T> z(p);
    const int group = p.heads / p.kv_heads;
    const int64_t size = z.state() * group, chunks = chunks_of(p, s);
    Buffer<T> carried, states, whole;
    carried.resize(size);
    states.resize(size * std::min(WINDOW, chunks));
    whole.resize(group * std::min(WINDOW, chunks));
    load_states<T>(p, z, from, part, carried);
    for (int64_t first = 0; first < chunks; first += WINDOW) {
        const int64_t count = std::min(WINDOW, chunks - first);
        const auto token = [&](int64_t i) {
            const int64_t chunk = direction == Direction::right ? first + i : chunks - 1 - first - i;
            return s.start + chunk * p.chunk;
        };
        parallel(count, 4, p.threads, make_scratch, [&](auto &x, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) add(x, token(i), states + i * size, whole + i * group);
        });
        for (int64_t i = 0; i < count; ++i)
            for (int g = 0; g < group; ++g) {
                const T kept = whole[i * group + g];
                T *state = carried + g * z.state(), *added = states + i * size + g * z.state();
                for (int64_t l = 0; l < z.state(); l += Lanes<T>::N) {
                    const Vec<T> before = at(state + l);
                    at(state + l) = kept == T(0) ? at(added + l) : kept * before + at(added + l);
                    at(added + l) = before;
                }
            }
        parallel(count, 4, p.threads, make_scratch, [&](auto &x, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) use(x, token(i), states + i * size);
        });
    }
    store_states<T>(p, z, carried, part, to);
}

} // namespace recurrence
} // namespace WINDEYE_ISA
} // namespace windeye
