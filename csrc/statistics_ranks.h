// The largest logits of each lane and whose they are. Logits that could enter are rare: blocks without any cost a comparison.
#pragma once

#include "statistics_scores.h"

namespace windeye {
namespace WINDEYE_ISA {
namespace statistics {

using windeye::statistics::MOST_TOP;

template <class T> class Ranks {
  public:
    struct Ranked {
        T score;
        int32_t key;
    };

    void begin() {
        for (auto &lane : best)
            for (Ranked &ranked : lane) ranked = {HIDDEN<T>, -1};
        lowest = splat<T>(HIDDEN<T>);
    }

    // Rows [first, last) of the block that begins at key `block`, of which `highest` is the maximum; `count` are ranked.
    void take(const Vec<T> *s, int first, int last, Vec<T> highest, int32_t block, int count) {
        if (!any<T>(highest > lowest)) return;
        for (int r = first; r < last; ++r) {
            const IVec<T> enters = s[r] > lowest;
            if (!any<T>(enters)) continue;
            for (int l = 0; l < N; ++l)
                if (enters[l]) insert(best[l], {s[r][l], block + r}, count), lowest[l] = best[l][count - 1].score;
        }
    }

    const Ranked &at(int lane, int rank) const { return best[lane][rank]; }

  private:
    static constexpr int N = Lanes<T>::N;
    Ranked best[N][MOST_TOP]; // descending; of equal ones the first key comes first
    Vec<T> lowest;            // of those that are kept

    static void insert(Ranked *lane, Ranked entry, int count) {
        int place = count - 1;
        for (; place > 0 && lane[place - 1].score < entry.score; --place) lane[place] = lane[place - 1];
        lane[place] = entry;
    }
};

} // namespace statistics
} // namespace WINDEYE_ISA
} // namespace windeye
