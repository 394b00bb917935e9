// Which keys stay among the best so far: a heap of at most `width` keys, smallest on top.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "threads.h"

namespace windeye {

// expiry[j] is the first position at which key j is no longer among the `width` best of the keys up to there; `keys` if
// there is none, j if it is not even among them at its own position. Of equal scores the later key is better.
template <class T> void topw_expiry_of(const T *score, const uint8_t *hidden, int32_t keys, int32_t width, int32_t *expiry) {
    std::vector<int32_t> heap;
    heap.reserve(std::min(keys, width));
    const auto better = [score](int32_t a, int32_t b) { return score[a] > score[b] || (score[a] == score[b] && a > b); };
    for (int32_t j = 0; j < keys; ++j) {
        expiry[j] = j;
        if (hidden && hidden[j]) continue;
        if (int32_t(heap.size()) == width) {
            if (better(heap.front(), j)) continue;
            std::pop_heap(heap.begin(), heap.end(), better);
            expiry[heap.back()] = j;
            heap.pop_back();
        }
        expiry[j] = keys;
        heap.push_back(j);
        std::push_heap(heap.begin(), heap.end(), better);
    }
}

} // namespace windeye
