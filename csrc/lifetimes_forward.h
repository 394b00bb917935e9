// Forward pass over live keys: a tile of consecutive queries walks over the keys it sees with a running maximum.
#pragma once

#include "lifetimes.h"
#include "softmax_forward.h"

namespace windeye {
namespace WINDEYE_ISA {

template <class S, class T = typename ComputeOf<S>::T>
void live_forward_tile(const Problem &p, ForwardScratch<T> &scratch, const LiveKeys &live, const Tile &tile, int64_t begin, int32_t batch, int32_t head, bool careful) {
    LaneDropout<T> dropout;
    dropout.set(p, batch, head, tile, false);
    const T *bias = p.lifetimes.bias ? static_cast<const T *>(p.lifetimes.bias) + bias_row(p, batch, head) : nullptr;

    begin_tile<S>(p, scratch, tile, batch, head);
    visit_live(live, begin, tile, p.key, p.value, scratch.rows, [&](int count) {
        take_rows<S>(p, scratch, tile, dropout, batch, head, count, bias != nullptr,
                     [&](int, const Row &row) { return bias[row.token]; }, careful);
    });
    if (!end_tile<S>(p, scratch, tile, batch, head, careful)) live_forward_tile<S, T>(p, scratch, live, tile, begin, batch, head, true);
}

template <class S> void live_forward_as(const Problem &p) {
    using T = typename ComputeOf<S>::T;
    const int vectors = lifetime_vectors<T>(p), lanes = vectors * Lanes<T>::N;
    parallel_runs(
        p, lanes, [&] { return ForwardScratch<T>(p, vectors); },
        [&](ForwardScratch<T> &scratch, int32_t batch, int32_t head, int64_t query, int64_t end) {
            LiveKeys live = live_keys(p, batch, head);
            sweep<T>(p, live, query, end, vectors, [&](const Tile &tile, int64_t begin) {
                live_forward_tile<S>(p, scratch, live, tile, begin, batch, head, false);
            });
        });
}

} // namespace WINDEYE_ISA
} // namespace windeye
