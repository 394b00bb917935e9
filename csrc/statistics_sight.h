// Which keys a vector of neighbouring queries sees, block by block, from the runs of each query.
#pragma once

#include "statistics_scores.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace statistics {

template <class T> class Sight {
  public:
    static constexpr int32_t NONE = std::numeric_limits<int32_t>::max();

    // Of the block that was looked at last: rows [first, last) hold all that is seen; where `full`, every lane sees them.
    int first = 0, last = 0;
    bool full = false;
    uint64_t seen[BLOCK]; // lanes that see each row; only of [first, last)

    void begin(const Problem &p, int32_t batch, int32_t query, int count) {
        start = p.start + p.run_row(batch) + query;
        stop = p.stop + p.run_row(batch) + query;
        runs = p.runs;
        stride = p.queries;
        lanes = count;
        for (int l = 0; l < lanes; ++l) at[l] = 0;
    }

    // The lowest key from `key` on that a lane sees; `key` never falls from call to call.
    int32_t next(int32_t key) {
        int32_t least = NONE;
        for (int l = 0; l < lanes; ++l) {
            int32_t &r = at[l];
            while (r < runs && (end_of(r, l) <= key || end_of(r, l) <= begin_of(r, l))) ++r;
            if (r < runs) least = std::min(least, std::max(key, begin_of(r, l)));
        }
        return least;
    }

    // After next(key) for a key of the block or before it.
    void look(int32_t block) {
        uint64_t any = 0, all = ~uint64_t(0), word[N];
        for (int l = 0; l < lanes; ++l) {
            word[l] = 0;
            for (int32_t r = at[l]; r < runs; ++r) {
                const int32_t from = begin_of(r, l), to = end_of(r, l);
                if (to <= from) continue;
                if (from >= block + BLOCK) break;
                word[l] |= bits_between(std::max(from - block, 0), std::min(to - block, BLOCK));
            }
            any |= word[l];
            all &= word[l];
        }
        first = last = 0;
        full = true;
        if (!any) return;
        first = __builtin_ctzll(any);
        last = 64 - __builtin_clzll(any);
        const uint64_t range = bits_between(first, last);
        full = (all & range) == range;
        if (full) std::fill(seen + first, seen + last, FULL<T>);
        else spread(word);
    }

  private:
    static constexpr int N = Lanes<T>::N;
    const int32_t *start, *stop;
    int64_t stride;
    int32_t runs;
    int lanes;
    int32_t at[N]; // the run that each lane is in

    // A word of rows per lane becomes a word of lanes per row.
    void spread(const uint64_t *word) {
        for (int r = first; r < last; ++r) {
            seen[r] = 0;
            for (int l = 0; l < lanes; ++l) seen[r] |= (word[l] >> r & 1) << l;
        }
    }

    int32_t begin_of(int32_t r, int l) const { return start[r * stride + l]; }
    int32_t end_of(int32_t r, int l) const { return stop[r * stride + l]; }
};

} // namespace statistics
} // namespace WINDEYE_ISA
} // namespace windeye
