// A parallel loop over numbered pieces of work.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace windeye {

// Calls body(scratch, begin, end) until [0, count) is done. Threads are started per call and joined: nothing survives
// that a fork could break, and starting one costs about 15 microseconds, against milliseconds of work.
template <class MakeScratch, class Body>
void parallel(int64_t count, int64_t grain, int threads, MakeScratch make_scratch, Body body) {
    if (count <= 0) return;
    threads = int(std::max<int64_t>(1, std::min<int64_t>(threads, (count + grain - 1) / grain)));
    std::atomic<int64_t> next{0};
    auto work = [&] {
        auto scratch = make_scratch();
        for (;;) {
            const int64_t begin = next.fetch_add(grain);
            if (begin >= count) return;
            body(scratch, begin, std::min(count, begin + grain));
        }
    };
    std::vector<std::thread> others;
    others.reserve(threads - 1);
    for (int t = 1; t < threads; ++t) others.emplace_back(work);
    work();
    for (auto &other : others) other.join();
}

} // namespace windeye
