#include "threads.h"

#include <thread>
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace windeye {
namespace {

using Team = void (*)(void (*)(void *), void *, unsigned, unsigned);

// Entry point of the OpenMP runtime in this process, whichever it is; null where there is none.
Team find_team() {
#if defined(__linux__)
    return reinterpret_cast<Team>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
#else
    return nullptr;
#endif
}

Team team = find_team();

#if defined(__linux__)
// The runtime's threads do not survive a fork and it does not notice; ours are started anew.
const int forgotten_by_forks = pthread_atfork(nullptr, nullptr, [] { team = nullptr; });
#endif

} // namespace

void on_each_thread(int threads, void (*run)(void *), void *data) {
    if (threads > 1 && team) {
        team(run, data, unsigned(threads), 0);
        return;
    }
    std::vector<std::thread> others;
    others.reserve(size_t(threads - 1));
    for (int t = 1; t < threads; ++t) others.emplace_back(run, data);
    run(data);
    for (auto &other : others) other.join();
}

} // namespace windeye
