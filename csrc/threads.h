// A parallel loop over numbered pieces of work.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace windeye {

// Calls run(data) on so many threads at once, this one among them. Threads are borrowed from torch's OpenMP runtime where
// there is one: after each operation of torch they wait in a busy loop for milliseconds, and threads of our own would
// share the cores with them.
void on_each_thread(int threads, void (*run)(void *), void *data);

// Calls body(scratch, begin, end) until [0, count) is done; a thread that comes late, or never, only leaves more to others.
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
    on_each_thread(threads, [](void *data) { (*static_cast<decltype(work) *>(data))(); }, &work);
}

} // namespace windeye
